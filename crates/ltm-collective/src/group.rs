//! The processes of a job, as what they do together.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ltm_kernels::{Buffer, Device};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::{self, Engine, Wait, mpi::Mpi};
use crate::error::TIMEOUT;
use crate::identity::Launcher;
use crate::{Error, Identity, Result};

/// How long a process waits for another, unless `LTM_TIMEOUT` says otherwise: what a step of one may take longer than
/// that of another.
const PATIENCE: Duration = Duration::from_secs(600);

/// Chooses the engine: `mpi` or `nccl`.
const ENGINE: &str = "LTM_COLLECTIVE";

/// The processes that work together, of which this is one. Clones are the same group.
///
/// Every process makes the same calls in the same order. A group of one has no engine, and every call returns at once:
/// what is written for a group runs alone as well.
///
/// ```
/// use ltm_collective::Group;
/// use ltm_kernels::Buffer;
///
/// let group = Group::alone();
/// assert_eq!(group.gather("here".to_string(), "an example")?, ["here"]);
/// let sum = group.sum(vec![Buffer::from_vec(vec![1.0_f32, 2.0])])?.wait()?;
/// assert_eq!(sum[0].as_slice::<f32>()?, [1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    rank: usize,
    size: usize,
    worker: Option<Arc<Worker>>,
}

/// The thread that owns the engine, and what is known of the group.
#[derive(Debug)]
struct Worker {
    jobs: Mutex<Sender<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    name: String,
    hosts: Vec<String>,
    launcher: Launcher,
}

type Reply<T> = Sender<Result<T>>;

enum Job {
    Gather(Vec<u8>, Wait, Reply<Vec<Vec<u8>>>),
    Sum(Vec<Buffer>, Reply<Vec<Buffer>>),
    Leave(Reply<()>),
}

impl Group {
    /// A group of this process alone.
    pub fn alone() -> Self {
        Self { rank: 0, size: 1, worker: None }
    }

    /// The group that the environment describes, for computing on `device`; alone where it describes none.
    ///
    /// On an NVIDIA GPU it is connected by NCCL, on the CPU by MPI; `LTM_COLLECTIVE=mpi` takes MPI for both.
    ///
    /// # Errors
    /// [`Error::Environment`], [`Error::NoEngine`] and [`Error::Missing`], which names who did not come.
    pub fn from_env(device: &Device) -> Result<Self> {
        match Identity::from_env()? {
            Some(identity) => Self::join(identity, device),
            None => Ok(Self::alone()),
        }
    }

    /// The group in which this process has this place.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    pub fn join(identity: Identity, device: &Device) -> Result<Self> {
        let timeout = timeout()?;
        let device = *device;
        let launcher = identity.launcher;
        let place = (identity.rank, identity.size);
        Self::with(place, launcher, move || open(&identity, &device, timeout))
    }

    /// A group whose engine `open` makes, on the thread that will use it.
    fn with<E: AsMut<dyn Engine>>(
        (rank, size): (usize, usize),
        launcher: Launcher,
        open: impl FnOnce() -> Result<E> + Send + 'static,
    ) -> Result<Self> {
        let (jobs, taken) = channel();
        let (opened, result) = channel();
        let thread = std::thread::spawn(move || {
            let mut engine = match open() {
                Ok(engine) => engine,
                Err(error) => return drop(opened.send(Err(error))),
            };
            let engine = engine.as_mut();
            let host = gethostname::gethostname().to_string_lossy().into_owned().into_bytes();
            let start = engine::gather(
                engine,
                host,
                Wait { during: "the start of the job", is_patient: false },
            );
            if opened.send(start.map(|hosts| (engine.name(), hosts))).is_ok() {
                work(engine, &taken);
            }
        });
        let (name, hosts) = result.recv().map_err(|_| ended())??;
        let hosts = hosts.iter().map(|host| String::from_utf8_lossy(host).into_owned()).collect();
        let (jobs, thread) = (Mutex::new(jobs), Mutex::new(Some(thread)));
        let worker = Worker { jobs, thread, name, hosts, launcher };
        Ok(Self { rank, size, worker: Some(Arc::new(worker)) })
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is the process that writes and prints.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Which of these `count` things this process does: a range of them, those of all processes in the order of ranks.
    pub fn share(&self, count: usize) -> std::ops::Range<usize> {
        let at = |rank: usize| count * rank / self.size;
        at(self.rank)..at(self.rank + 1)
    }

    /// The [shares](Self::share) of all processes, in the order of ranks.
    pub fn shares(&self, count: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let size = self.size;
        (0..size).map(move |rank| count * rank / size..count * (rank + 1) / size)
    }

    /// Processes on the machine of this one.
    pub fn on_this_machine(&self) -> usize {
        let Some(worker) = &self.worker else { return 1 };
        worker.hosts.iter().filter(|host| **host == worker.hosts[self.rank]).count()
    }

    /// Who is connected, and how; `None` alone.
    pub fn description(&self) -> Option<String> {
        let worker = self.worker.as_ref()?;
        let mut machines: Vec<(&str, usize)> = Vec::new();
        for host in &worker.hosts {
            match machines.iter_mut().find(|(known, _)| known == host) {
                Some((_, count)) => *count += 1,
                None => machines.push((host, 1)),
            }
        }
        let machines: Vec<_> =
            machines.iter().map(|(host, count)| format!("{count} on {host}")).collect();
        let by = match worker.launcher {
            Launcher::Torchrun => "by RANK and WORLD_SIZE",
            Launcher::Slurm => "by Slurm",
            Launcher::OpenMpi => "by Open MPI",
            Launcher::Mpich => "by mpiexec",
        };
        Some(format!("{} processes {by}, {}; {}", self.size, machines.join(", "), worker.name))
    }

    /// What every process says, in the order of ranks; `during` says in messages what it is for.
    ///
    /// # Errors
    /// [`Error::Missing`] naming who did not answer in time, [`Error::Call`], [`Error::Foreign`] when another process says
    /// something else, which is another program.
    pub fn gather<T: Serialize + DeserializeOwned>(
        &self,
        mine: T,
        during: &'static str,
    ) -> Result<Vec<T>> {
        self.gather_as(mine, Wait { during, is_patient: false })
    }

    /// As [`gather`](Self::gather), and waits for as long as it takes: after work that takes one process longer than another.
    /// Whether one has died only the launcher knows.
    ///
    /// # Errors
    /// Those of [`gather`](Self::gather) but [`Error::Missing`].
    pub fn gather_patiently<T: Serialize + DeserializeOwned>(
        &self,
        mine: T,
        during: &'static str,
    ) -> Result<Vec<T>> {
        self.gather_as(mine, Wait { during, is_patient: true })
    }

    fn gather_as<T: Serialize + DeserializeOwned>(&self, mine: T, wait: Wait) -> Result<Vec<T>> {
        let Some(worker) = &self.worker else { return Ok(vec![mine]) };
        let foreign = |rank: usize| {
            move |error: postcard::Error| Error::Foreign { rank, reason: error.to_string() }
        };
        let bytes = postcard::to_stdvec(&mine).map_err(foreign(self.rank))?;
        let all = worker.ask(|reply| Job::Gather(bytes, wait, reply))?;
        let all = all.recv().map_err(|_| ended())??;
        let read =
            |(rank, bytes): (usize, &Vec<u8>)| postcard::from_bytes(bytes).map_err(foreign(rank));
        all.iter().enumerate().map(read).collect()
    }

    /// Waits for all.
    ///
    /// # Errors
    /// Those of [`gather`](Self::gather).
    pub fn barrier(&self, during: &'static str) -> Result<()> {
        self.gather((), during).map(drop)
    }

    /// Says how something went here, and learns how it went everywhere: what all processes say if none has failed.
    /// A process that failed says why, and goes on with its own error, which it keeps.
    ///
    /// ```
    /// # use ltm_collective::Group;
    /// let group = Group::alone();
    /// let opened: Result<u64, String> = "7".parse().map_err(|_| "no number".into());
    /// let sizes = group.agree(opened.as_ref().map_err(String::clone), "an example");
    /// let (own, sizes) = (opened?, sizes?);
    /// assert_eq!((own, sizes), (7, vec![7]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Elsewhere`] when another process failed; those of [`gather`](Self::gather).
    pub fn agree<T: Serialize + DeserializeOwned + Clone>(
        &self,
        mine: std::result::Result<&T, String>,
        during: &'static str,
    ) -> Result<Vec<T>> {
        let mine = mine.cloned();
        let mut heard = Vec::with_capacity(self.size);
        let mut failed = None;
        for (rank, said) in self.gather(mine, during)?.into_iter().enumerate() {
            match said {
                Ok(value) => heard.push(value),
                Err(message) if rank != self.rank => {
                    failed = failed.or(Some(Error::Elsewhere { rank, message }));
                }
                Err(_) => {}
            }
        }
        failed.map_or(Ok(heard), Err)
    }

    /// Begins to sum buffers of floats over the processes, each of which gives as many of the same lengths. The sums are
    /// the same bits everywhere; over a power of two of processes they are those of one process that adds in the order
    /// of [`tree`](crate::tree).
    ///
    /// The exchange runs beside what this thread does next; sums that were begun run one after the other.
    ///
    /// # Errors
    /// [`Error::NoEngine`] after an earlier failure.
    pub fn sum(&self, buffers: Vec<Buffer>) -> Result<Sum> {
        match &self.worker {
            None => Ok(Sum(State::Done(buffers))),
            Some(worker) => Ok(Sum(State::UnderWay(worker.ask(|reply| Job::Sum(buffers, reply))?))),
        }
    }

    /// Ends the connection, once every process does. Without it the launcher takes a process that ends for a failed one.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn leave(self) -> Result<()> {
        let Some(worker) = &self.worker else { return Ok(()) };
        let left = worker.ask(Job::Leave)?.recv().map_err(|_| ended())?;
        let thread = worker.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        left
    }
}

/// A sum that was begun.
#[must_use = "the buffers come back from `wait`"]
#[derive(Debug)]
pub struct Sum(State);

#[derive(Debug)]
enum State {
    Done(Vec<Buffer>),
    UnderWay(Receiver<Result<Vec<Buffer>>>),
}

impl Sum {
    /// The sums, in the buffers that were given.
    ///
    /// # Errors
    /// [`Error::Missing`] naming who did not answer in time, [`Error::Call`], [`Error::Kernel`].
    pub fn wait(self) -> Result<Vec<Buffer>> {
        match self.0 {
            State::Done(buffers) => Ok(buffers),
            State::UnderWay(reply) => reply.recv().map_err(|_| ended())?,
        }
    }
}

impl Worker {
    /// Hands a job to the thread.
    fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<Receiver<Result<T>>> {
        let (reply, answer) = channel();
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.send(job(reply)).map_err(|_| ended())?;
        Ok(answer)
    }
}

/// Does the jobs until the group is dropped, or left, or one fails: after that the processes are no longer in step.
fn work(engine: &mut dyn Engine, jobs: &Receiver<Job>) {
    fn answer<T>(reply: &Reply<T>, outcome: Result<T>) -> bool {
        let failed = outcome.is_err();
        reply.send(outcome).is_ok() && !failed
    }
    for job in jobs {
        let goes_on = match job {
            Job::Gather(mine, during, reply) => {
                answer(&reply, engine::gather(engine, mine, during))
            }
            Job::Sum(mut buffers, reply) => {
                let outcome = engine.sum(&mut buffers).map(|()| buffers);
                answer(&reply, outcome)
            }
            Job::Leave(reply) => {
                answer(&reply, engine.leave());
                false
            }
        };
        if !goes_on {
            return;
        }
    }
}

fn ended() -> Error {
    Error::NoEngine { reason: "an earlier exchange failed, or the group was left".into() }
}

/// How long a process waits for another.
fn timeout() -> Result<Duration> {
    let Ok(text) = std::env::var(TIMEOUT) else { return Ok(PATIENCE) };
    match text.parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::Environment {
            variable: TIMEOUT.into(),
            expected: "a number of seconds from 1".into(),
            found: format!("`{text}`"),
        }),
    }
}

/// An engine behind a pointer.
struct Opened(Box<dyn Engine>);

impl AsMut<dyn Engine> for Opened {
    fn as_mut(&mut self) -> &mut (dyn Engine + 'static) {
        &mut *self.0
    }
}

/// Connects the job by the engine that suits the device.
fn open(identity: &Identity, device: &Device, timeout: Duration) -> Result<Opened> {
    let asked = std::env::var(ENGINE).ok();
    let by_nccl = match asked.as_deref() {
        None => matches!(device, Device::Cuda(_)),
        Some("mpi") => false,
        Some("nccl") => true,
        Some(other) => {
            let expected = "`mpi` or `nccl`".into();
            let found = format!("`{other}`");
            return Err(Error::Environment { variable: ENGINE.into(), expected, found });
        }
    };
    if by_nccl {
        return open_nccl(identity, device, timeout);
    }
    if !identity.launcher.is_of_mpi() {
        let reason =
            "on the CPU they are connected by MPI, which must start them: `mpiexec -n N ltm …` or \
                      `srun ltm …` instead of the variables RANK and WORLD_SIZE"
                .into();
        return Err(Error::NoEngine { reason });
    }
    let mpi = Mpi::open(timeout)?;
    let (rank, size) = mpi.place();
    if (rank, size) != (identity.rank, identity.size) {
        let reason = format!(
            "MPI says that this is rank {rank} of {size}, the environment that it is rank {} of {}: start the processes \
             with the launcher of this MPI library ({})",
            identity.rank,
            identity.size,
            mpi.name()
        );
        return Err(Error::NoEngine { reason });
    }
    Ok(Opened(Box::new(mpi)))
}

#[cfg(feature = "cuda")]
fn open_nccl(identity: &Identity, device: &Device, timeout: Duration) -> Result<Opened> {
    let Device::Cuda(context) = device else {
        let reason = "NCCL connects NVIDIA GPUs, and the device is the CPU".into();
        return Err(Error::NoEngine { reason });
    };
    Ok(Opened(Box::new(engine::nccl::Nccl::open(identity, context, timeout)?)))
}

#[cfg(not(feature = "cuda"))]
fn open_nccl(_: &Identity, _: &Device, _: Duration) -> Result<Opened> {
    Err(Error::NoEngine { reason: "this build has no CUDA".into() })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::engine::{Exchange, Message};
    use crate::tree;

    /// Processes that are threads.
    struct Threads {
        rank: usize,
        to: Vec<Sender<Message>>,
        from: Vec<Receiver<Message>>,
    }

    impl AsMut<dyn Engine> for Threads {
        fn as_mut(&mut self) -> &mut (dyn Engine + 'static) {
            self
        }
    }

    impl Engine for Threads {
        fn place(&self) -> (usize, usize) {
            (self.rank, self.to.len())
        }

        fn exchange(&mut self, exchange: Exchange) -> Result<Vec<Vec<u8>>> {
            for (to, message) in exchange.sends {
                assert_ne!(to, self.rank);
                self.to[to].send(message).map_err(|_| ended())?;
            }
            let wait = Duration::from_secs(20);
            let receive = |(from, len): (usize, usize)| match self.from[from].recv_timeout(wait) {
                Ok(message) => {
                    assert_eq!(message.len(), len);
                    Ok(Arc::unwrap_or_clone(message))
                }
                Err(_) => {
                    let during = exchange.wait.during;
                    Err(Error::Missing { ranks: vec![from], seconds: 20, during })
                }
            };
            exchange.receives.into_iter().map(receive).collect()
        }

        fn leave(&mut self) -> Result<()> {
            Ok(())
        }

        fn name(&self) -> String {
            "threads".into()
        }
    }

    /// Runs `body` in a group of `size`.
    fn together<T: Send>(size: usize, body: impl Fn(&Group) -> T + Sync) -> Vec<T> {
        let mut ends: Vec<(Vec<_>, Vec<_>)> = (0..size).map(|_| Default::default()).collect();
        for to in 0..size {
            for from in 0..size {
                let (sender, receiver) = channel();
                ends[from].0.push(sender);
                ends[to].1.push(receiver);
            }
        }
        let body = &body;
        std::thread::scope(|scope| {
            let process = |(rank, (to, from))| {
                scope.spawn(move || {
                    let open = move || Ok(Threads { rank, to, from });
                    let group = Group::with((rank, size), Launcher::Mpich, open).expect("opened");
                    let outcome = body(&group);
                    // A group that failed has nothing to leave.
                    let _ = group.leave();
                    outcome
                })
            };
            let processes: Vec<_> = ends.into_iter().enumerate().map(process).collect();
            processes.into_iter().map(|process| process.join().expect("no panic")).collect()
        })
    }

    /// Numbers whose sum depends on the order.
    fn number(term: usize, at: usize) -> f32 {
        let bits = (term * 7919 + at * 104_729) % 1009;
        (bits as f32 - 500.0) * 10_f32.powi((bits % 9) as i32 - 4)
    }

    #[test]
    fn sums_have_the_bits_of_one_process_everywhere() {
        const TERMS: usize = 12;
        const LENGTHS: [usize; 3] = [5, 0, 1003];
        let term = |term: usize| -> Vec<Vec<f32>> {
            LENGTHS.iter().map(|len| (0..*len).map(|at| number(term, at)).collect()).collect()
        };
        let add = |a: &mut Vec<Vec<f32>>, b: Vec<Vec<f32>>| {
            let pairs = a.iter_mut().flatten().zip(b.into_iter().flatten());
            pairs.for_each(|(a, b)| *a += b);
        };
        let one = tree::sum((0..TERMS).map(term), add).expect("terms");
        let in_sequence = (0..TERMS).map(term).reduce(|mut a, b| {
            add(&mut a, b);
            a
        });
        assert_ne!(Some(&one), in_sequence.as_ref(), "the order is of no consequence here");
        for size in [1, 2, 3, 4] {
            let sums = together(size, |group| {
                let mine = tree::sum(group.share(TERMS).map(term), add).expect("terms");
                let buffers = mine.into_iter().map(Buffer::from_vec).collect();
                let sums = group.sum(buffers).expect("begun").wait().expect("summed");
                sums.iter().map(|sum| sum.to_f32().expect("floats")).collect::<Vec<_>>()
            });
            assert!(sums.iter().all(|sum| *sum == sums[0]), "{size}");
            match size {
                // Another tree, of the same numbers.
                3 => {
                    for (a, b) in sums[0].iter().flatten().zip(one.iter().flatten()) {
                        assert!((a - b).abs() <= 1e-5 * 5e7, "{a} {b}");
                    }
                }
                _ => assert_eq!(sums[0], one, "{size}"),
            }
        }
    }

    #[test]
    fn doubles_and_lengths_below_the_size_are_summed() {
        for (rank, sum) in together(4, |group| {
            let mine = Buffer::from_vec(vec![group.rank() as f64 + 0.5]);
            group.sum(vec![mine]).expect("begun").wait().expect("summed")
        })
        .into_iter()
        .enumerate()
        {
            assert_eq!(sum[0].as_slice::<f64>().expect("doubles"), [8.0], "rank {rank}");
        }
        let none = together(2, |group| group.sum(Vec::new()).expect("begun").wait());
        assert!(none.iter().all(|sum| sum.as_ref().is_ok_and(Vec::is_empty)));
    }

    #[test]
    fn everyone_gets_what_everyone_says() {
        let heard = together(3, |group| {
            let mine = vec![7_u8; group.rank() * 1000];
            group.gather(mine, "a test").expect("said")
        });
        for all in heard {
            assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1000, 2000]);
        }
    }

    #[test]
    fn a_failure_is_heard_everywhere_and_its_own_process_goes_on_with_it() {
        let heard = together(3, |group| {
            let mine = if group.rank() == 1 { Err("no room".into()) } else { Ok(&1) };
            (group.agree(mine, "a test"), group.agree(Ok(&2.5_f64), "another"))
        });
        for (rank, (first, second)) in heard.into_iter().enumerate() {
            match (rank, first) {
                (1, Ok(heard)) => assert_eq!(heard, [1, 1], "those that did not fail"),
                (_, Err(Error::Elsewhere { rank: 1, message })) => assert_eq!(message, "no room"),
                (_, other) => panic!("rank {rank}: {other:?}"),
            }
            assert_eq!(second, Ok(vec![2.5; 3]), "the group goes on");
        }
    }

    #[test]
    fn after_a_failed_exchange_nothing_is_exchanged() {
        let integers = || vec![Buffer::from_vec(vec![1_i32])];
        let outcomes = together(2, |group| {
            let failed = group.sum(integers()).expect("begun").wait().expect_err("no floats");
            (failed.to_string(), group.barrier("a test").expect_err("out of step").to_string())
        });
        for (failed, after) in outcomes {
            assert!(failed.contains("sum"), "{failed}");
            assert!(after.contains("earlier exchange"), "{after}");
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        for (size, count) in [(1, 5), (2, 5), (4, 3), (3, 12)] {
            let shares = together(size, |group| group.share(count));
            let all: Vec<_> = shares.into_iter().flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
