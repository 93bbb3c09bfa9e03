//! The number that an answer ends in. Knows no model.

/// The text before the number in an answer.
const MARK: &str = "####";

/// The number after the first `####` that a number follows, in the spelling of GSM8K's answers: a decimal number without
/// `$`, `+`, thousands separators, a final dot and superfluous zeros, so that `#### $1,080.00.` is `1080`. A fraction or
/// a power of ten is that decimal number too, `1/2` is `0.5` and `1e3` is `1000`; a fraction that no decimal number
/// equals stays a reduced fraction.
pub fn extract(text: &str) -> Option<String> {
    text.match_indices(MARK).find_map(|(at, _)| number(text[at..].trim_start_matches('#')))
}

fn number(text: &str) -> Option<String> {
    let mut rest = text.trim_start();
    let mut negative = false;
    while let Some(after) = rest.strip_prefix(['+', '-', '−', '$']) {
        negative |= rest.starts_with(['-', '−']);
        rest = after.trim_start();
    }
    let (first, after) = decimal(rest)?;
    let fraction = |numerator: &Decimal, after: &str| {
        let (denominator, after) = decimal(after.strip_prefix('/')?)?;
        // A date, or something else.
        (!after.starts_with('/')).then(|| ratio(numerator, &denominator)).flatten()
    };
    let slash = after.strip_prefix('/').is_some_and(|after| decimal(after).is_some());
    let value = if slash {
        fraction(&first, after)?
    } else {
        // A mixed number, such as 2 1/2.
        let mixed = after.strip_prefix(' ').and_then(decimal).and_then(|(numerator, after)| {
            let (numerator, denominator) =
                (numerator.whole()?, decimal(after.strip_prefix('/')?)?.0.whole()?);
            let sum = first.whole()?.checked_mul(denominator)?.checked_add(numerator)?;
            ratio(&Decimal::from(sum), &Decimal::from(denominator))
        });
        mixed.unwrap_or_else(|| first.to_string())
    };
    Some(if negative && value != "0" { format!("-{value}") } else { value })
}

/// `digits` times ten to the power of `exponent`.
struct Decimal {
    digits: String,
    exponent: i32,
}

impl From<u128> for Decimal {
    fn from(whole: u128) -> Self {
        Self { digits: whole.to_string(), exponent: 0 }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = usize::try_from(-self.exponent).unwrap_or(0);
        let zeros = "0".repeat(usize::try_from(self.exponent).unwrap_or(0));
        // By hand: a width in a format has 16 bits.
        let padding = "0".repeat((decimals + 1).saturating_sub(self.digits.len()));
        let digits = format!("{padding}{}{zeros}", self.digits);
        let (whole, decimals) = digits.split_at(digits.len() - decimals);
        let (whole, decimals) = (whole.trim_start_matches('0'), decimals.trim_end_matches('0'));
        let dot = if decimals.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{decimals}", if whole.is_empty() { "0" } else { whole })
    }
}

impl Decimal {
    /// The value of a whole number that is not too long.
    fn whole(&self) -> Option<u128> {
        (self.exponent == 0).then(|| self.digits.parse().ok()).flatten()
    }
}

/// The unsigned decimal number that a text starts with, and what follows it.
fn decimal(text: &str) -> Option<(Decimal, &str)> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | ',')).unwrap_or(text.len());
    let digits = text[..end].replace(',', "");
    let mut parts = digits.split('.');
    let (whole, decimals) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let digits = format!("{whole}{decimals}");
    if digits.is_empty() {
        return None;
    }
    let (power, rest) = power_of_ten(&text[end..]).unwrap_or((0, &text[end..]));
    let exponent = power - i32::try_from(decimals.len()).ok()?;
    Some((Decimal { digits, exponent }, rest))
}

/// The exponent of `e3` or `E-2` at the start of a text, of at most three digits, and what follows it.
fn power_of_ten(text: &str) -> Option<(i32, &str)> {
    let text = text.strip_prefix(['e', 'E'])?;
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end > 3 {
        return None;
    }
    Some((sign * text[..end].parse::<i32>().ok()?, &text[end..]))
}

/// A quotient as a decimal number, or as a reduced fraction where it is none; `None` for one of very long numbers.
fn ratio(numerator: &Decimal, denominator: &Decimal) -> Option<String> {
    let shift = numerator.exponent.checked_sub(denominator.exponent)?;
    let scaled = |number: &Decimal, zeros: i32| {
        let power = 10_u128.checked_pow(u32::try_from(zeros.max(0)).ok()?)?;
        number.digits.parse::<u128>().ok()?.checked_mul(power)
    };
    let (numerator, denominator) = (scaled(numerator, shift)?, scaled(denominator, -shift)?);
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (numerator, denominator) = (numerator.checked_div(a)?, denominator.checked_div(a)?);
    let mut rest = denominator;
    let mut powers = 0; // of ten that the denominator divides
    while rest > 1 {
        let factor = [10, 5, 2].into_iter().find(|factor| rest.is_multiple_of(*factor));
        let Some(factor) = factor else { return Some(format!("{numerator}/{denominator}")) };
        rest /= factor;
        powers += 1;
    }
    let digits = numerator.checked_mul(10_u128.checked_pow(powers)?)?.checked_div(denominator)?;
    Some(Decimal { digits: digits.to_string(), exponent: -(powers as i32) }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_extracted_in_one_spelling() {
        for (text, expected) in [
            ("so it is 3.\n#### 18", Some("18")),
            ("#### 70,000\n", Some("70000")),
            ("####$1,080.00.", Some("1080")),
            ("#### -$5", Some("-5")),
            ("#### $ -5 dollars", Some("-5")),
            ("#### −7", Some("-7")),
            ("#### +7", Some("7")),
            ("#### 18.Then more", Some("18")),
            ("#### 2.50 and 3", Some("2.5")),
            ("#### .5", Some("0.5")),
            ("#### 007", Some("7")),
            ("#### -0.0", Some("0")),
            ("#### 20%", Some("20")),
            ("#### 1/2", Some("0.5")),
            ("#### -3/4 of it", Some("-0.75")),
            ("#### 2/6", Some("1/3")),
            ("#### 6/3", Some("2")),
            ("#### $1,000/2", Some("500")),
            ("#### 1.5/0.5", Some("3")),
            ("#### 2 1/2", Some("2.5")),
            ("#### 2 1 2", Some("2")),
            ("#### 7/", Some("7")),
            ("#### 7 / week", Some("7")),
            ("#### 1/0", None),
            ("#### 1/2/2020", None),
            ("#### 1e3", Some("1000")),
            ("#### 1.25E2", Some("125")),
            ("#### 5e-1", Some("0.5")),
            ("#### -0e9", Some("0")),
            ("#### 3 eggs", Some("3")),
            ("#### 3eggs", Some("3")),
            ("#### none\n#### 4", Some("4")),
            ("####", None),
            ("#### .", None),
            ("#### ,", None),
            ("the answer is 18", None),
            ("### 18", None),
        ] {
            assert_eq!(extract(text).as_deref(), expected, "{text}");
        }
        let long = format!("0.{}1", "0".repeat(70_000));
        assert_eq!(extract(&format!("#### {long}")).as_deref(), Some(&*long));
    }
}
