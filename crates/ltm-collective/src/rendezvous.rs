//! How the processes of a job without MPI find each other: rank 0 listens, the others ask it for one short message.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::{Error, Identity, Result};

/// What every process that asks says first, so that a stray connection is not counted.
const GREETING: [u8; 8] = *b"ltm-join";

/// How long a connection may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(50);

/// What it is for, in messages.
const DURING: &str = "the start of the job";

/// The port where nothing says another: that of PyTorch's launchers.
const PORT: u16 = 29500;

/// Where rank 0 listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

impl Place {
    /// `MASTER_ADDR` and `MASTER_PORT`, or what the launcher says instead.
    fn find(identity: &Identity, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let missing = |name: &str, expected: &str, found: String| Error::Environment {
            variable: name.into(),
            expected: expected.into(),
            found,
        };
        let port = |text: String| -> Result<u16> {
            text.parse()
                .map_err(|_| missing("MASTER_PORT", "a port from 0 to 65535", format!("`{text}`")))
        };
        match (variable("MASTER_ADDR"), variable("MASTER_PORT")) {
            (Some(host), Some(text)) => {
                let agent = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v == "True");
                // There torchrun itself listens on that port.
                let port = port(text)?.wrapping_add(u16::from(agent));
                return Ok(Self { host, port });
            }
            (Some(_), None) => {
                let expected = "the port on which rank 0 listens, beside MASTER_ADDR";
                return Err(missing("MASTER_PORT", expected, "that it is not set".into()));
            }
            (None, Some(_)) => {
                let expected = "the machine of rank 0, beside MASTER_PORT";
                return Err(missing("MASTER_ADDR", expected, "that it is not set".into()));
            }
            (None, None) => {}
        }
        if let (Some(nodes), Some(job)) =
            (variable("SLURM_STEP_NODELIST"), variable("SLURM_JOB_ID"))
        {
            // A port of the job's own, as its numbers follow each other.
            let job: u64 = job.parse().unwrap_or_default();
            return Ok(Self { host: first_node(&nodes), port: 20_000 + (job % 20_000) as u16 });
        }
        let here = ["MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "LOCAL_WORLD_SIZE"];
        let size = Some(identity.size.to_string());
        if identity.size == 1 || here.iter().any(|name| variable(name) == size) {
            return Ok(Self { host: "127.0.0.1".into(), port: PORT });
        }
        let expected = "the machine of rank 0, and MASTER_PORT a free port of it";
        Err(missing("MASTER_ADDR", expected, "that it is not set".into()))
    }
}

/// The first name in a list of Slurm's, such as `node[03-07,11],other`.
fn first_node(list: &str) -> String {
    let (name, rest) = list.split_once(['[', ',']).unwrap_or((list, ""));
    if !list[name.len()..].starts_with('[') {
        return name.into();
    }
    let number = rest.split(['-', ',', ']']).next().unwrap_or_default();
    format!("{name}{number}")
}

/// The message of rank 0, in every process.
///
/// # Errors
/// [`Error::Environment`] when nothing says where rank 0 listens, [`Error::Missing`] naming who did not come in time.
pub(crate) fn share<const N: usize>(
    identity: &Identity,
    message: [u8; N],
    timeout: Duration,
) -> Result<[u8; N]> {
    if identity.size == 1 {
        return Ok(message);
    }
    let place = Place::find(identity, |name| std::env::var(name).ok())?;
    match identity.rank {
        0 => give(identity.size, &place, message, timeout),
        rank => ask(rank, identity.size, &place, timeout),
    }
}

/// Waits for each of the other processes, and answers it.
fn give<const N: usize>(
    size: usize,
    place: &Place,
    message: [u8; N],
    timeout: Duration,
) -> Result<[u8; N]> {
    let failed = |call: &str, error: std::io::Error| Error::Call {
        call: format!("{call} port {}, MASTER_PORT", place.port),
        reason: error.to_string(),
    };
    let listener =
        TcpListener::bind(("0.0.0.0", place.port)).map_err(|error| failed("listen on", error))?;
    listener.set_nonblocking(true).map_err(|error| failed("listen on", error))?;
    let started = Instant::now();
    let mut missing: Vec<usize> = (1..size).collect();
    while !missing.is_empty() {
        match listener.accept() {
            // Who says nothing of use is not one of the job, and whoever is asks again.
            Ok((stream, _)) => {
                if let Ok(rank) = answer(stream, size, &message) {
                    missing.retain(|other| *other != rank);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(failed("listen on", error)),
        }
        if started.elapsed() > timeout && !missing.is_empty() {
            let seconds = timeout.as_secs();
            return Err(Error::Missing { ranks: missing, seconds, during: DURING });
        }
    }
    Ok(message)
}

/// Reads who asks, and sends the message.
fn answer(mut stream: TcpStream, size: usize, message: &[u8]) -> std::io::Result<usize> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; GREETING.len()];
    let mut numbers = [[0; 8]; 2];
    stream.read_exact(&mut greeting)?;
    for number in &mut numbers {
        stream.read_exact(number)?;
    }
    let [rank, of] = numbers.map(u64::from_le_bytes);
    if greeting != GREETING || of != size as u64 || rank >= of {
        return Err(ErrorKind::InvalidData.into());
    }
    stream.write_all(message)?;
    // The answer counts once it was read.
    stream.read_exact(&mut [0])?;
    Ok(rank as usize)
}

/// Asks rank 0 until it answers.
fn ask<const N: usize>(
    rank: usize,
    size: usize,
    place: &Place,
    timeout: Duration,
) -> Result<[u8; N]> {
    let once = || -> std::io::Result<[u8; N]> {
        let mut stream = TcpStream::connect((&*place.host, place.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&GREETING)?;
        for number in [rank, size] {
            stream.write_all(&(number as u64).to_le_bytes())?;
        }
        let mut message = [0; N];
        stream.read_exact(&mut message)?;
        stream.write_all(&[1])?;
        Ok(message)
    };
    let started = Instant::now();
    loop {
        if let Ok(message) = once() {
            return Ok(message);
        }
        if started.elapsed() > timeout {
            let seconds = timeout.as_secs();
            return Err(Error::Missing { ranks: vec![0], seconds, during: DURING });
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Launcher;

    fn found(text: &str, size: usize) -> Result<Place> {
        let pairs: Vec<_> =
            text.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        let identity = Identity { rank: 0, size, local_rank: None, launcher: Launcher::Torchrun };
        Place::find(&identity, |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn rank_0_listens_where_the_launcher_says() {
        for (text, host, port) in [
            ("MASTER_ADDR=a MASTER_PORT=7", "a", 7),
            ("MASTER_ADDR=a MASTER_PORT=7 TORCHELASTIC_USE_AGENT_STORE=True", "a", 8),
            ("MASTER_ADDR=a MASTER_PORT=7 SLURM_JOB_ID=5 SLURM_STEP_NODELIST=n1", "a", 7),
            ("SLURM_JOB_ID=20005 SLURM_STEP_NODELIST=n[03-07,11],m", "n03", 20_005),
            ("SLURM_JOB_ID=5 SLURM_STEP_NODELIST=n1,n2", "n1", 20_005),
            ("MPI_LOCALNRANKS=2", "127.0.0.1", PORT),
        ] {
            assert_eq!(found(text, 2), Ok(Place { host: host.into(), port }), "{text}");
        }
        for (text, variable) in [
            ("MASTER_ADDR=a", "MASTER_PORT"),
            ("MASTER_PORT=7", "MASTER_ADDR"),
            ("MASTER_ADDR=a MASTER_PORT=70000", "MASTER_PORT"),
            ("MPI_LOCALNRANKS=1", "MASTER_ADDR"),
        ] {
            let error = found(text, 2).expect_err(text).to_string();
            assert!(error.contains(variable), "{text}: {error}");
        }
    }

    fn free_place() -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        Place { host: "127.0.0.1".into(), port }
    }

    #[test]
    fn all_get_the_message_of_rank_0_beside_strangers() {
        let place = free_place();
        let long = Duration::from_secs(20);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..4)
                .map(|rank| {
                    scope.spawn({
                        let place = place.clone();
                        move || ask::<5>(rank, 4, &place, long)
                    })
                })
                .collect();
            scope.spawn(|| {
                for text in ["GET / HTTP/1.1\r\n\r\n", "", "ltm-join"] {
                    if let Ok(mut stranger) = TcpStream::connect((&*place.host, place.port)) {
                        let _ = stranger.write_all(text.as_bytes());
                    }
                    std::thread::sleep(PAUSE);
                }
            });
            assert_eq!(give(4, &place, *b"12345", long), Ok(*b"12345"));
            for other in others {
                assert_eq!(other.join().expect("no panic"), Ok(*b"12345"));
            }
        });
    }

    #[test]
    fn who_does_not_come_is_named() {
        let place = free_place();
        let short = Duration::from_millis(300);
        std::thread::scope(|scope| {
            scope.spawn(|| ask::<1>(2, 4, &place, Duration::from_secs(20)));
            let error = give(4, &place, [0], short).expect_err("two are missing");
            let Error::Missing { ranks, .. } = error else { panic!("{error}") };
            assert_eq!(ranks, [1, 3]);
        });
        let error = ask::<1>(1, 2, &free_place(), short).expect_err("nobody listens");
        assert!(error.to_string().contains("rank 0"), "{error}");
    }
}
