//! CUDA's `printf` and `assert`: the functions `vprintf` and `__assertfail` of its runtime, with
//! C's format strings.

use super::block::Block;
use super::warp::{Warp, lanes};
use crate::program::{Builtin, Reg};
use crate::report::{FaultKind, Trouble};

/// The longest string that is read, in bytes.
const MAX_STRING: usize = 64 << 10;
/// The widest field that is printed, in characters.
const MAX_WIDTH: usize = 4096;

impl Block<'_> {
    pub(crate) fn builtin(
        &mut self,
        warp: &mut Warp,
        builtin: Builtin,
        d: Option<Reg>,
        args: &[Reg],
        mask: u32,
    ) -> Result<(), Trouble> {
        let arg =
            |warp: &Warp, i: usize, lane: usize| args.get(i).map_or(0, |r| warp.get(*r)[lane]);
        match builtin {
            Builtin::AssertFail => {
                let lane = mask.trailing_zeros() as usize;
                let [text, file, line, function] = [0, 1, 2, 3].map(|i| arg(warp, i, lane));
                let [text, file, function] = [
                    self.string(warp, text, lane)?,
                    self.string(warp, file, lane)?,
                    self.string(warp, function, lane)?,
                ];
                let line = line as u32;
                let detail = format!("assertion `{text}` failed in {function} at {file}:{line}");
                Err(Trouble::lane(FaultKind::Assert, lane, detail))
            }
            Builtin::Print => {
                let mut count = [0; 32];
                for lane in lanes(mask) {
                    let format = self.string(warp, arg(warp, 0, lane), lane)?;
                    let mut values = Values { at: arg(warp, 1, lane), lane };
                    let (text, n) = self.formatted(warp, &format, &mut values)?;
                    self.launch.options.output.print(&text);
                    count[lane] = n;
                }
                if let Some(d) = d {
                    warp.set(d, &count, mask);
                }
                Ok(())
            }
        }
    }

    /// Reads a zero-terminated string.
    fn string(&mut self, warp: &Warp, address: u64, lane: usize) -> Result<String, Trouble> {
        let mut bytes = Vec::new();
        if address == 0 {
            return Ok("(null)".into());
        }
        while bytes.len() < MAX_STRING {
            match self.byte(warp, address.wrapping_add(bytes.len() as u64), lane)? {
                0 => break,
                byte => bytes.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the next argument, of 4 or 8 bytes, aligned to its size.
    fn value(&mut self, warp: &Warp, values: &mut Values, bytes: u64) -> Result<u64, Trouble> {
        let at = values.at.wrapping_add(bytes - 1) & !(bytes - 1);
        values.at = at.wrapping_add(bytes);
        let mut value = 0;
        for i in 0..bytes {
            value |= u64::from(self.byte(warp, at.wrapping_add(i), values.lane)?) << (8 * i);
        }
        Ok(value)
    }

    /// Expands a format string; returns the text and the number of arguments.
    fn formatted(
        &mut self,
        warp: &Warp,
        format: &str,
        values: &mut Values,
    ) -> Result<(String, u64), Trouble> {
        let (mut text, mut n) = (String::new(), 0);
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            text += &rest[..at];
            rest = &rest[at + 1..];
            let Some((mut field, after)) = Field::parse(rest) else {
                text.push('%');
                continue;
            };
            rest = after;
            if field.kind == '%' {
                text.push('%');
                continue;
            }
            if field.width == Size::Argument {
                let width = self.value(warp, values, 4)? as i32;
                field.left |= width < 0;
                field.width = Size::Of(width.unsigned_abs() as usize);
            }
            if field.precision == Size::Argument {
                let precision = self.value(warp, values, 4)? as i32;
                field.precision = usize::try_from(precision).map_or(Size::None, Size::Of);
            }
            n += 1;
            let body = match field.kind {
                's' => {
                    let address = self.value(warp, values, 8)?;
                    let string = self.string(warp, address, values.lane)?;
                    let most = field.precision.or(usize::MAX);
                    string.chars().take(most).collect()
                }
                'c' => {
                    let byte = self.value(warp, values, 4)? as u8;
                    char::from(byte).to_string()
                }
                'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'p' => {
                    let bytes = if field.long || field.kind == 'p' { 8 } else { 4 };
                    let value = self.value(warp, values, bytes)?;
                    field.integer(value, bytes)
                }
                _ => {
                    let value = self.value(warp, values, 8)?;
                    field.float(f64::from_bits(value))
                }
            };
            text += &field.padded(body);
            if text.len() > MAX_STRING {
                return Ok((text, n));
            }
        }
        text += rest;
        Ok((text, n))
    }
}

/// Where the next argument of a lane is read.
struct Values {
    at: u64,
    lane: usize,
}

/// A width or a precision.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    None,
    Of(usize),
    /// `*`: given by a separate argument.
    Argument,
}

impl Size {
    fn or(self, default: usize) -> usize {
        match self {
            Size::Of(n) => n,
            _ => default,
        }
    }
}

/// A conversion specification: what follows `%`.
struct Field {
    left: bool,
    plus: bool,
    space: bool,
    alternative: bool,
    zeros: bool,
    width: Size,
    precision: Size,
    /// The argument has 64 bits instead of 32.
    long: bool,
    kind: char,
}

impl Field {
    /// Parses a specification; returns it and the text after it.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let flags = text.len() - text.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        let (flags, mut rest) = text.split_at(flags);
        let size = |rest: &mut &str| {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                return Size::Argument;
            }
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = rest.split_at(digits);
            *rest = after;
            number.parse().map_or(Size::None, Size::Of)
        };
        let width = size(&mut rest);
        let mut precision = Size::None;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            precision = match size(&mut rest) {
                Size::None => Size::Of(0),
                size => size,
            };
        }
        let length = rest.len() - rest.trim_start_matches(['h', 'l', 'j', 'z', 't', 'L']).len();
        let (length, rest) = rest.split_at(length);
        let kind = rest.chars().next().filter(|kind| "diuxXopcsfFeEgGaA%".contains(*kind))?;
        let long = length.contains(['l', 'j', 'z', 't']);
        let has = |flag| flags.contains(flag);
        let field = Self {
            left: has('-'),
            plus: has('+'),
            space: has(' '),
            alternative: has('#'),
            zeros: has('0'),
            width,
            precision,
            long,
            kind,
        };
        Some((field, &rest[1..]))
    }

    fn sign(&self, negative: bool) -> &'static str {
        match () {
            () if negative => "-",
            () if self.plus => "+",
            () if self.space => " ",
            () => "",
        }
    }

    fn integer(&self, value: u64, bytes: u64) -> String {
        let signed = if bytes == 4 { i64::from(value as i32) } else { value.cast_signed() };
        let is_signed = matches!(self.kind, 'd' | 'i');
        let digits = match self.kind {
            'd' | 'i' => signed.unsigned_abs().to_string(),
            'u' => value.to_string(),
            'x' => format!("{value:x}"),
            'X' => format!("{value:X}"),
            'o' => format!("{value:o}"),
            _ => format!("0x{value:x}"),
        };
        let prefix = match self.kind {
            'x' | 'X' if self.alternative && value != 0 => format!("0{}", self.kind),
            'o' if self.alternative => "0".into(),
            _ => String::new(),
        };
        let sign = if is_signed { self.sign(signed < 0) } else { "" };
        let least = self.precision.or(1).min(MAX_WIDTH);
        format!("{sign}{prefix}{digits:0>least$}")
    }

    fn float(&self, x: f64) -> String {
        let sign = self.sign(x.is_sign_negative() && !x.is_nan());
        let precision = self.precision.or(6).min(MAX_WIDTH);
        let magnitude = x.abs();
        let text = if !x.is_finite() {
            if x.is_nan() { "nan".into() } else { "inf".into() }
        } else {
            match self.kind.to_ascii_lowercase() {
                'f' => format!("{magnitude:.precision$}"),
                'e' => exponential(magnitude, precision),
                'a' => hexadecimal(magnitude),
                _ => general(magnitude, precision.max(1), self.alternative),
            }
        };
        let text = format!("{sign}{text}");
        if self.kind.is_ascii_uppercase() { text.to_uppercase() } else { text }
    }

    fn padded(&self, body: String) -> String {
        let width = self.width.or(0).min(MAX_WIDTH);
        let missing = width.saturating_sub(body.chars().count());
        let zeros = self.zeros && !self.left && !matches!(self.kind, 's' | 'c' | 'p');
        if missing == 0 {
            body
        } else if self.left {
            format!("{body}{:missing$}", "")
        } else if zeros && body.chars().all(|c| c.is_ascii_hexdigit() || "+-. xX".contains(c)) {
            // Zeros go between the sign or prefix and the digits.
            let digits = body.trim_start_matches(['+', '-', ' ']);
            let digits = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(digits);
            let (before, digits) = body.split_at(body.len() - digits.len());
            format!("{before}{:0>missing$}{digits}", "")
        } else {
            format!("{:missing$}{body}", "")
        }
    }
}

/// `1.500000e+00`
fn exponential(x: f64, precision: usize) -> String {
    let text = format!("{x:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// `%g`: the `%e` or `%f` form, with `precision` significant digits.
fn general(x: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = exponential(x, precision - 1);
    let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    let trimmed = |text: &str| {
        if keep_zeros || !text.contains('.') {
            text.to_owned()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if x != 0.0 && (exponent < -4 || exponent >= precision as i32) {
        let (mantissa, rest) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        return format!("{}e{rest}", trimmed(mantissa));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{x:.decimals$}"))
}

/// `0x1.8p+0`
fn hexadecimal(x: f64) -> String {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let (lead, exponent) = match (exponent, fraction) {
        (0, 0) => (0, 0),
        (0, _) => (0, -1022),
        _ => (1, exponent - 1023),
    };
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("0x{lead}{point}{digits}p{exponent:+}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, value: f64, expected: &str) {
        let (field, rest) = Field::parse(&format[1..]).expect(format);
        assert_eq!((field.padded(field.float(value)).as_str(), rest), (expected, ""), "{format}");
    }

    #[test]
    fn floats_as_c_prints_them() {
        check("%f", 1.5, "1.500000");
        check("%.2f", -1.005, "-1.00");
        check("%08.2f", -1.5, "-0001.50");
        check("%e", 0.0, "0.000000e+00");
        check("%.3E", 12345.678, "1.235E+04");
        check("%g", 100000.0, "100000");
        check("%g", 1e6, "1e+06");
        check("%g", 0.0001, "0.0001");
        check("%g", 0.00001, "1e-05");
        check("%+g", 0.5, "+0.5");
        check("%a", 1.5, "0x1.8p+0");
        check("%8f", f64::INFINITY, "     inf");
        check("%-8.1f", 2.0, "2.0     ");
    }

    #[test]
    fn integers_as_c_prints_them() {
        let check = |format: &str, value: u64, expected: &str| {
            let (field, _) = Field::parse(&format[1..]).expect(format);
            let bytes = if field.long { 8 } else { 4 };
            assert_eq!(field.padded(field.integer(value, bytes)), expected, "{format}");
        };
        check("%d", 0xffff_ffff, "-1");
        check("%u", 0xffff_ffff, "4294967295");
        check("%lld", u64::MAX, "-1");
        check("%5d", 42, "   42");
        check("%-5d", 42, "42   ");
        check("%05d", 0xffff_fffe, "-0002");
        check("%#x", 255, "0xff");
        check("%#010X", 255, "0X000000FF");
        check("%.3d", 7, "007");
        check("%+d", 7, "+7");
    }
}
