//! Decodes instructions that involve several lanes of a warp: matrix products, shuffles, votes.
//! Knows only their form.

use super::form::{Decoded, Form};
use super::{Decoder, Scope};
use crate::program::inst::{Op, Reg, Shuffle, VoteKind};
use crate::report::Class;
use crate::text::Operand;
use crate::values::{self, Mma};

impl Decoder<'_> {
    pub(super) fn across_lanes(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        match form.base() {
            "mma" => {
                form.need(4)?;
                let mma = Mma::parse(form.opcode).ok_or_else(|| form.unknown())?;
                let d: Vec<Reg> = self.targets(scope, &form.o[0])?.into_iter().flatten().collect();
                let d = d.try_into().map_err(|_| "expected four targets")?;
                let (a, b) = (self.sources(scope, &form.o[1])?, self.sources(scope, &form.o[2])?);
                if (a.len(), b.len()) != mma.registers() {
                    return Err(format!("expected fragments of {:?} registers", mma.registers()));
                }
                let c = self.sources(scope, &form.o[3])?;
                let c = c.try_into().map_err(|_| "expected four sums")?;
                // Counted per lane, like other operations.
                Ok((Op::Mma { mma, d, a, b, c }, Class::Mma, mma.flops() / 32))
            }
            "shfl" => {
                form.need(5)?;
                form.knows(&["sync up down bfly idx"])?;
                let kind = match form.parts.get(2).copied() {
                    Some("up") => Shuffle::Up,
                    Some("down") => Shuffle::Down,
                    Some("bfly") => Shuffle::Butterfly,
                    Some("idx") => Shuffle::Index,
                    _ => return Err(form.unknown()),
                };
                let (d, p) = match &form.o[0] {
                    Operand::Pair(d, p) => {
                        (self.target(scope, d)?, Some(self.predicate(scope, p)?))
                    }
                    d => (self.target(scope, d)?, None),
                };
                let [a, lane, clamp] = self.three(scope, &form.o[1..4])?;
                let mask = self.source(scope, &form.o[4])?;
                Ok((Op::Shuffle { kind, d, p, a, lane, clamp, mask }, Class::Warp, 0))
            }
            "vote" => {
                form.need(3)?;
                form.knows(&["sync all any uni ballot"])?;
                if !form.has("sync") {
                    return Err(form.unknown());
                }
                let kind = match form.parts.get(2).copied() {
                    Some("all") => VoteKind::All,
                    Some("any") => VoteKind::Any,
                    Some("uni") => VoteKind::Uniform,
                    Some("ballot") => VoteKind::Ballot,
                    _ => return Err(form.unknown()),
                };
                let ballot = kind == VoteKind::Ballot;
                let dp = if ballot { None } else { Some(self.predicate(scope, &form.o[0])?) };
                let d = self.target(scope, if ballot { &form.o[0] } else { &Operand::Sink })?;
                let p = self.condition(scope, &form.o[1])?;
                let mask = self.source(scope, &form.o[2])?;
                Ok((Op::Vote { kind, d, dp, p, mask }, Class::Warp, 0))
            }
            "match" => {
                form.need(3)?;
                let (all, bits) = match form.parts.as_slice() {
                    ["match", kind @ ("any" | "all"), "sync", ty @ ("b32" | "b64")] => {
                        (*kind == "all", if *ty == "b32" { 32 } else { 64 })
                    }
                    _ => return Err(form.unknown()),
                };
                let (d, dp) = match &form.o[0] {
                    Operand::Pair(d, p) if all => {
                        (self.target(scope, d)?, Some(self.predicate(scope, p)?))
                    }
                    d => (self.target(scope, d)?, None),
                };
                let (a, mask) = (self.source(scope, &form.o[1])?, self.source(scope, &form.o[2])?);
                Ok((Op::Match { all, bits, d, dp, a, mask }, Class::Warp, 0))
            }
            "redux" => {
                form.need(3)?;
                let (["redux", "sync", op, ty], true) = (form.parts.as_slice(), form.ty() != "f32")
                else {
                    return Err(form.unknown());
                };
                let (alu, ..) =
                    values::find(&format!("{op}.{ty}")).ok_or_else(|| form.unknown())?;
                let [d, a, mask] = [
                    self.target(scope, &form.o[0])?,
                    self.source(scope, &form.o[1])?,
                    self.source(scope, &form.o[2])?,
                ];
                Ok((Op::Reduce { alu, d, a, mask }, Class::Warp, 0))
            }
            "activemask" => {
                form.need(1)?;
                Ok((Op::ActiveMask { d: self.target(scope, &form.o[0])? }, Class::Warp, 0))
            }
            _ => Err(form.unknown()),
        }
    }
}
