//! Parses kernel arguments and prints buffers.

use std::path::PathBuf;
use std::str::FromStr;

use half::{bf16, f16};

/// The largest buffer, in bytes.
const MAX_BYTES: usize = 4 << 30;

#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// The little-endian bytes of a number.
    Number(Vec<u8>),
    Buffer(Buffer),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    ty: Type,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// This many unwritten elements.
    Nothing(usize),
    /// This many elements with these bytes.
    Filled(usize, Vec<u8>),
    Iota(usize),
    Random(usize),
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    /// Number of bytes, and whether signed.
    Integer(usize, bool),
    F16,
    BF16,
    F32,
    F64,
}

const TYPES: [(&str, Type); 12] = [
    ("i8", Type::Integer(1, true)),
    ("u8", Type::Integer(1, false)),
    ("i16", Type::Integer(2, true)),
    ("u16", Type::Integer(2, false)),
    ("i32", Type::Integer(4, true)),
    ("u32", Type::Integer(4, false)),
    ("i64", Type::Integer(8, true)),
    ("u64", Type::Integer(8, false)),
    ("f16", Type::F16),
    ("bf16", Type::BF16),
    ("f32", Type::F32),
    ("f64", Type::F64),
];

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = TYPES.iter().find(|(name, _)| *name == text);
        found.map(|(_, ty)| *ty).ok_or_else(|| {
            let names = TYPES.map(|(name, _)| name).join(" ");
            format!("unknown type `{text}`, expected one of {names}")
        })
    }
}

impl Type {
    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, ty)| *ty == self).map_or("", |(name, _)| name)
    }

    fn bytes(self) -> usize {
        match self {
            Type::Integer(bytes, _) => bytes,
            Type::F16 | Type::BF16 => 2,
            Type::F32 => 4,
            Type::F64 => 8,
        }
    }

    /// Parses a number into its little-endian bytes.
    fn read(self, text: &str) -> Result<Vec<u8>, String> {
        let wrong = || format!("`{text}` is not a number of type {}", self.name());
        let float = || text.parse::<f64>().map_err(|_| wrong());
        Ok(match self {
            Type::Integer(bytes, signed) => {
                let value: i128 = match text.strip_prefix("0x") {
                    Some(hex) => i128::from_str_radix(hex, 16).map_err(|_| wrong())?,
                    None => text.parse().map_err(|_| wrong())?,
                };
                let bits = 8 * bytes as u32;
                let least = if signed { -(1i128 << (bits - 1)) } else { 0 };
                if value < least || value >= 1i128 << bits {
                    return Err(wrong());
                }
                value.to_le_bytes()[..bytes].to_vec()
            }
            _ => self.of_float(float()?),
        })
    }

    fn of_float(self, x: f64) -> Vec<u8> {
        match self {
            Type::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
            Type::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
            Type::F32 => (x as f32).to_le_bytes().to_vec(),
            Type::F64 => x.to_le_bytes().to_vec(),
            Type::Integer(bytes, _) => (x as i64).to_le_bytes()[..bytes].to_vec(),
        }
    }

    /// Formats a number.
    fn write(self, bytes: &[u8]) -> String {
        let word = bytes.iter().rev().fold(0u64, |x, byte| x << 8 | u64::from(*byte));
        match self {
            Type::Integer(bytes, true) => {
                let unused = 64 - 8 * bytes as u32;
                ((word << unused) as i64 >> unused).to_string()
            }
            Type::Integer(..) => word.to_string(),
            Type::F16 => f16::from_bits(word as u16).to_string(),
            Type::BF16 => bf16::from_bits(word as u16).to_string(),
            Type::F32 => f32::from_bits(word as u32).to_string(),
            Type::F64 => f64::from_bits(word).to_string(),
        }
    }
}

impl FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "expected TYPE=NUMBER, TYPE:LENGTH, TYPE:LENGTH=CONTENT or TYPE:@FILE";
        let at = text.find([':', '=']).ok_or(form)?;
        let ty: Type = text[..at].parse()?;
        let rest = &text[at + 1..];
        if text[at..].starts_with('=') {
            return Ok(Argument::Number(ty.read(rest)?));
        }
        if let Some(file) = rest.strip_prefix('@') {
            return Ok(Argument::Buffer(Buffer { ty, content: Content::File(file.into()) }));
        }
        let (len, content) = rest.split_once('=').map_or((rest, None), |(a, b)| (a, Some(b)));
        let len: usize = len.parse().map_err(|_| format!("`{len}` is not a length; {form}"))?;
        if len == 0 || len > MAX_BYTES / ty.bytes() {
            return Err(format!("a buffer has 1 to {} elements", MAX_BYTES / ty.bytes()));
        }
        let content = match content {
            None => Content::Nothing(len),
            Some("iota") => Content::Iota(len),
            Some("random") => Content::Random(len),
            Some(number) => Content::Filled(len, ty.read(number)?),
        };
        Ok(Argument::Buffer(Buffer { ty, content }))
    }
}

impl Buffer {
    /// Size in bytes.
    pub fn len(&self) -> Result<usize, String> {
        let elements = match &self.content {
            Content::Nothing(len) | Content::Filled(len, _) => *len,
            Content::Iota(len) | Content::Random(len) => *len,
            Content::File(path) => {
                let found = std::fs::metadata(path);
                let bytes = found.map_err(|error| format!("{}: {error}", path.display()))?.len();
                return usize::try_from(bytes)
                    .ok()
                    .filter(|bytes| (1..=MAX_BYTES).contains(bytes))
                    .ok_or(format!("{}: expected 1 to {MAX_BYTES} bytes", path.display()));
            }
        };
        Ok(elements * self.ty.bytes())
    }

    /// Initial content; `None` for an unwritten buffer.
    pub fn data(&self) -> Result<Option<Vec<u8>>, String> {
        Ok(match &self.content {
            Content::Nothing(_) => None,
            Content::Filled(len, bytes) => Some(bytes.repeat(*len)),
            Content::Iota(len) => {
                Some((0..*len).flat_map(|i| self.ty.of_float(i as f64)).collect())
            }
            Content::Random(len) => {
                let mut state = 0x9e37_79b9_7f4a_7c15u64;
                let mut next = || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                };
                let number = |bits: u64| match self.ty {
                    Type::Integer(bytes, _) => bits.to_le_bytes()[..bytes].to_vec(),
                    ty => ty.of_float((bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0),
                };
                Some((0..*len).flat_map(|_| number(next())).collect())
            }
            Content::File(path) => {
                let bytes = std::fs::read(path);
                Some(bytes.map_err(|error| format!("{}: {error}", path.display()))?)
            }
        })
    }

    /// Describes the type, the length, how many elements changed, and the first values.
    pub fn describe(&self, before: &[u8], after: &[u8], show: usize) -> String {
        let size = self.ty.bytes();
        let pairs = before.chunks_exact(size).zip(after.chunks_exact(size));
        let changed = pairs.filter(|(before, after)| before != after).count();
        let n = after.len() / size;
        let shown: Vec<_> =
            after.chunks_exact(size).take(show).map(|bytes| self.ty.write(bytes)).collect();
        let more = if n > show { ", …" } else { "" };
        format!("{} × {n}, {changed} changed: {}{more}", self.ty.name(), shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(text: &str) -> Buffer {
        match text.parse() {
            Ok(Argument::Buffer(buffer)) => buffer,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn numbers_have_the_bytes_of_their_type() {
        let number = |text: &str| text.parse::<Argument>();
        assert_eq!(number("i32=-2"), Ok(Argument::Number(vec![0xfe, 0xff, 0xff, 0xff])));
        assert_eq!(number("u64=0x10"), Ok(Argument::Number(16u64.to_le_bytes().to_vec())));
        assert_eq!(number("f32=0.5"), Ok(Argument::Number(0.5f32.to_le_bytes().to_vec())));
        assert_eq!(number("bf16=1"), Ok(Argument::Number(vec![0x80, 0x3f])));
        for (text, part) in [
            ("i32=x", "not a number of type i32"),
            ("u8=256", "not a number"),
            ("u8=-1", "not a number"),
            ("i9=1", "unknown type"),
            ("7", "expected TYPE=NUMBER"),
            ("f32:0", "1 to"),
            ("f32:99999999999999", "1 to"),
            ("f32:x", "not a length"),
            ("f32:4=y", "not a number"),
        ] {
            let error = number(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn buffers_hold_what_is_asked_for() {
        assert_eq!(buffer("i16:3=iota").data(), Ok(Some(vec![0, 0, 1, 0, 2, 0])));
        assert_eq!(buffer("u8:3=7").data(), Ok(Some(vec![7, 7, 7])));
        assert_eq!(buffer("f64:3").data(), Ok(None));
        assert_eq!(buffer("f64:3").len(), Ok(24));
        assert!(buffer("u8:@/nowhere/at/all").len().expect_err("not there").contains("/nowhere"));
        let random = buffer("f32:100=random");
        let data = random.data().expect("made").expect("filled");
        let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert!(
            values.clone().all(|x| (-1.0..=1.0).contains(&x)) && values.clone().any(|x| x < 0.0)
        );
        assert_eq!(random.data(), buffer("f32:100=random").data());
    }

    #[test]
    fn buffers_are_described_by_what_changed() {
        let (before, after) = ([0u8; 12], [0u8, 0, 0, 0, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let text = buffer("i32:3").describe(&before, &after, 8);
        assert_eq!(text, "i32 × 3, 2 changed: 0, 5, -1");
        assert_eq!(buffer("u32:3").describe(&before, &after, 1), "u32 × 3, 2 changed: 0, …");
    }
}
