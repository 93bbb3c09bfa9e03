//! The bytes of a shard: ids of 16 or 32 bits, little-endian, with or without llm.c's header. Knows no tokenizers.

use std::fs::File;
use std::io;

use super::positioned::read_exact_at;

/// Shards of llm.c start with 256 32-bit integers: a magic number, the version, the number of tokens.
pub(crate) const HEADER_BYTES: u64 = 256 * 4;

/// Where a header has the number of tokens.
pub(crate) const COUNT_AT: u64 = 8;

/// Most tokens of a file with a header.
pub(crate) const MOST_TOKENS: u64 = i32::MAX as u64;

/// Bytes of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// As nanoGPT and llm.c write GPT-2's ids.
    Two = 2,
    /// As llm.c writes those of Llama 3.
    Four = 4,
}

impl Width {
    /// The smallest width of the ids of a vocabulary.
    pub(crate) fn of(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Self::Two } else { Self::Four }
    }

    pub(crate) fn bytes(self) -> u64 {
        self as u64
    }

    /// The width that a header's magic number and version stand for.
    pub(crate) fn of_header([magic, version]: [i32; 2]) -> Option<Self> {
        [Self::Two, Self::Four].into_iter().find(|width| width.magic() == [magic, version])
    }

    /// Magic number and version in the header of such a shard.
    pub(crate) fn magic(self) -> [i32; 2] {
        match self {
            Self::Two => [20240520, 1],
            Self::Four => [20240801, 7],
        }
    }

    /// The header of a shard of `count` tokens, at most [`MOST_TOKENS`].
    pub(crate) fn header(self, count: u64) -> Vec<u8> {
        let [magic, version] = self.magic();
        let mut fields = [0_i32; 256];
        fields[..3].copy_from_slice(&[magic, version, count.min(MOST_TOKENS) as i32]);
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    /// Appends ids, which have this width.
    pub(crate) fn pack(self, ids: &[u32], into: &mut Vec<u8>) {
        match self {
            Self::Two => into.extend(ids.iter().flat_map(|id| (*id as u16).to_le_bytes())),
            Self::Four => into.extend(ids.iter().flat_map(|id| id.to_le_bytes())),
        }
    }

    /// The ids in whole bytes of this width.
    pub(crate) fn unpack(self, bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
        bytes.chunks_exact(self as usize).map(|id| match *id {
            [a, b] => u16::from_le_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("chunks of 2 or 4 bytes"),
        })
    }
}

/// Magic number, version and token count of an llm.c header, when the file of `bytes` bytes starts with a magic number of
/// one; the file may be shorter than a header.
pub(crate) fn read_header(file: &File, bytes: u64) -> io::Result<Option<[i32; 3]>> {
    let mut fields = [0; 12];
    let available = fields.len().min(bytes as usize);
    read_exact_at(file, &mut fields[..available], 0)?;
    let header =
        [0, 1, 2].map(|i| i32::from_le_bytes([0, 1, 2, 3].map(|byte| fields[4 * i + byte])));
    let known = [Width::Two, Width::Four].map(|width| width.magic()[0]);
    Ok(known.contains(&header[0]).then_some(header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_either_width() {
        for (width, ids) in [
            (Width::of(1 << 16), vec![0, 1, 65_535]),
            (Width::of((1 << 16) + 1), vec![0, 65_536, i32::MAX as u32]),
        ] {
            let mut bytes = Vec::new();
            width.pack(&ids, &mut bytes);
            assert_eq!(bytes.len() as u64, ids.len() as u64 * width.bytes());
            assert_eq!(width.unpack(&bytes).collect::<Vec<_>>(), ids);
        }
    }
}
