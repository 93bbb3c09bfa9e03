//! The form of an instruction: its opcode split at the dots, and its operands. Knows no instruction.

use crate::text::Operand;

/// An instruction: its opcode split at the dots, and its operands.
pub(super) struct Form<'o> {
    pub opcode: &'o str,
    pub parts: Vec<&'o str>,
    pub o: &'o [Operand],
}

impl Form<'_> {
    pub(super) fn base(&self) -> &str {
        self.parts[0]
    }

    /// The last part of the opcode: the type, if there is one.
    pub(super) fn ty(&self) -> &str {
        self.parts.last().copied().unwrap_or_default()
    }

    pub(super) fn has(&self, modifier: &str) -> bool {
        self.parts.contains(&modifier)
    }

    pub(super) fn need(&self, operands: usize) -> Decoded<()> {
        self.need_between(operands, operands)
    }

    pub(super) fn need_between(&self, least: usize, most: usize) -> Decoded<()> {
        match self.o.len() {
            n if n < least || n > most => Err(format!("expected {least} operands, found {n}")),
            _ => Ok(()),
        }
    }

    /// Fails if a part between the base and the type is in none of these lists of words.
    pub(super) fn knows(&self, lists: &[&str]) -> Decoded<()> {
        let mut between = self.parts.iter().skip(1).take(self.parts.len().saturating_sub(2));
        let known = |part: &str| lists.iter().any(|list| list.split(' ').any(|word| word == part));
        match between.find(|part| !known(part)) {
            None => Ok(()),
            Some(part) => Err(format!("unknown instruction `{}` with `.{part}`", self.opcode)),
        }
    }

    pub(super) fn unknown(&self) -> String {
        format!("unknown instruction `{}`", self.opcode)
    }
}

/// `Err` is the reason; the caller adds the line.
pub(super) type Decoded<T> = Result<T, String>;
