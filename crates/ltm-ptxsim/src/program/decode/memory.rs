//! Decodes loads, stores, atomics and copies. Knows only their form.

use super::form::{Decoded, Form};
use super::{Decoder, Scope};
use crate::memory::Space;
use crate::program::inst::{Access, Op, Strength, Update};
use crate::report::Class;
use crate::text::{Operand, type_bytes};

/// Modifiers that need no handling here: order, scope and cache hints. There is one memory, and
/// accesses execute in order.
const HARMLESS: &str = "weak volatile relaxed acquire release acq_rel cta cluster gpu sys \
    ca cg cs lu cv wb wt nc L1::evict_normal L1::evict_first L1::evict_last L1::evict_unchanged \
    L1::no_allocate L2::64B L2::128B L2::256B L2::evict_normal L2::evict_first L2::evict_last";
const SPACES: &str = "global const shared shared::cta local param param::entry param::func";

impl Decoder<'_> {
    pub(super) fn memory(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let ty = form.ty();

        match form.base() {
            "ld" | "ldu" => {
                form.need(2)?;
                form.knows(&[HARMLESS, SPACES, "v2 v4"])?;
                let param = form.has("param");
                if param && (scope.depth > 0 || self.is_call_param(scope, &form.o[1])) {
                    return self.load_param(form, scope);
                }
                let (access, count) = self.access(scope, form, &form.o[1])?;
                let d = self.targets(scope, &form.o[0])?;
                if d.len() != count {
                    return Err(format!("expected {count} targets"));
                }
                Ok((Op::Load { access, d }, class_of(access.space), 0))
            }
            "st" => {
                form.need(2)?;
                form.knows(&[HARMLESS, SPACES, "v2 v4"])?;
                if form.has("param") {
                    return self.store_param(form, scope);
                }
                let (access, count) = self.access(scope, form, &form.o[0])?;
                let s = self.sources(scope, &form.o[1])?;
                if s.len() != count {
                    return Err(format!("expected {count} values"));
                }
                Ok((Op::Store { access, s }, class_of(access.space), 0))
            }
            "atom" | "red" => {
                let returns = usize::from(form.base() == "atom");
                form.need(2 + returns + usize::from(form.has("cas")))?;
                form.knows(&[HARMLESS, SPACES, "add inc dec min max and or xor exch cas noftz"])?;
                let (mut access, count) = self.access(scope, form, &form.o[returns])?;
                access.strength = access.strength.max(Strength::Strong);
                let half = form.has("add") && form.has("noftz");
                if access.bytes < 2
                    || access.bytes == 2 && !half && !(form.has("cas") && ty == "b16")
                {
                    return Err(form.unknown());
                }
                if count != 1 || form.has("noftz") != ty.contains("f16") {
                    return Err(form.unknown());
                }
                let update = match () {
                    () if half && ty == "f16" => Update::AddF16,
                    () if half && ty == "bf16" => Update::AddBF16,
                    () if half && ty == "f16x2" => Update::AddF16x2,
                    () if half && ty == "bf16x2" => Update::AddBF16x2,
                    () if form.has("inc") && ty == "u32" => Update::Increment,
                    () if form.has("dec") && ty == "u32" => Update::Decrement,
                    () if form.has("add") && ty == "f32" => Update::AddF32,
                    () if form.has("add") && ty == "f64" => Update::AddF64,
                    () if ty.contains('f') => return Err(form.unknown()),
                    () if form.has("add") => Update::Add,
                    () if form.has("min") && ty.starts_with('s') => Update::MinS,
                    () if form.has("max") && ty.starts_with('s') => Update::MaxS,
                    () if form.has("min") => Update::MinU,
                    () if form.has("max") => Update::MaxU,
                    () if form.has("and") => Update::And,
                    () if form.has("or") => Update::Or,
                    () if form.has("xor") => Update::Xor,
                    () if form.has("exch") => Update::Exchange,
                    () if form.has("cas") => Update::CompareExchange,
                    () => return Err(form.unknown()),
                };
                let d = if returns == 1 { Some(self.target(scope, &form.o[0])?) } else { None };
                let a = self.source(scope, &form.o[1 + returns])?;
                let b = form.o.get(2 + returns).map(|o| self.source(scope, o)).transpose()?;
                Ok((Op::Atomic { access, update, d, a, b }, class_of(access.space), 0))
            }
            "cp" if form.parts.get(1) == Some(&"async") => {
                let asynchronous = |op| Ok((op, Class::AsyncCopy, 0));
                match form.parts.get(2).copied() {
                    Some("commit_group") => asynchronous(Op::CopyCommit),
                    Some("wait_all") => asynchronous(Op::CopyWait { pending: None }),
                    Some("wait_group") => match form.o.first() {
                        Some(Operand::Integer(n)) => {
                            asynchronous(Op::CopyWait { pending: Some(*n as u32) })
                        }
                        _ => Err("expected a constant number of groups".into()),
                    },
                    Some("ca" | "cg") if !form.has("L2::cache_hint") => {
                        form.need_between(3, 4)?;
                        let (to, to_offset) = self.address(scope, &form.o[0])?;
                        let (from, from_offset) = self.address(scope, &form.o[1])?;
                        let Operand::Integer(bytes) = form.o[2] else {
                            return Err("expected a constant number of bytes".into());
                        };
                        let valid = form.o.get(3).map(|o| self.source(scope, o)).transpose()?;
                        let bytes = match bytes {
                            4 | 8 | 16 => bytes as u32,
                            _ => {
                                return Err(format!(
                                    "expected a copy of 4, 8 or 16 bytes, found {bytes}"
                                ));
                            }
                        };
                        asynchronous(Op::CopyAsync {
                            to,
                            to_offset,
                            from,
                            from_offset,
                            bytes,
                            valid,
                        })
                    }
                    _ => Err(form.unknown()),
                }
            }
            "ldmatrix" | "stmatrix" if form.ty() == "b16" && form.has("m8n8") => {
                form.need(2)?;
                form.knows(&["sync aligned m8n8 trans shared shared::cta x1 x2 x4"])?;
                let count = form.parts.iter().find_map(|part| part.strip_prefix('x')?.parse().ok());
                let load = form.base() == "ldmatrix";
                let (address, offset) = self.address(scope, &form.o[usize::from(load)])?;
                let transposed = form.has("trans");
                let op = if load {
                    let d: Vec<_> =
                        self.targets(scope, &form.o[0])?.into_iter().flatten().collect();
                    Op::LoadMatrix { d, transposed, address, offset }
                } else {
                    let s = self.sources(scope, &form.o[1])?;
                    Op::StoreMatrix { s, transposed, address, offset }
                };
                let (Op::LoadMatrix { d: list, .. } | Op::StoreMatrix { s: list, .. }) = &op else {
                    return Err(form.unknown());
                };
                if count != Some(list.len()) {
                    return Err("expected one register per matrix".into());
                }
                Ok((op, Class::Shared, 0))
            }
            _ => Err(form.unknown()),
        }
    }

    fn access(
        &mut self,
        scope: &Scope,
        form: &Form,
        address: &Operand,
    ) -> Decoded<(Access, usize)> {
        let mut space = Space::Generic;
        for part in &form.parts {
            match part.split("::").next().unwrap_or(part) {
                "global" | "const" => space = Space::Global,
                "shared" => space = Space::Shared,
                "local" => space = Space::Local,
                "param" => space = Space::Param,
                _ => {}
            }
        }
        let ty = form.ty();
        let bytes = type_bytes(ty).filter(|b| *b <= 8).ok_or(format!("unknown type `{ty}`"))?;
        let count =
            form.parts.iter().find_map(|part| part.strip_prefix('v')?.parse().ok()).unwrap_or(1);
        if bytes as usize * count > 16 {
            return Err(format!(
                "a vector of {count} × {bytes} bytes, at most 16 bytes are supported"
            ));
        }
        let (address, offset) = self.address(scope, address)?;
        let signed = ty.starts_with('s');
        // Within one block accesses are in order anyway.
        let strength = match () {
            () if form.has("cta") => Strength::Weak,
            () if form.has("release") || form.has("acq_rel") => Strength::Release,
            () if ["volatile", "relaxed", "acquire"].iter().any(|word| form.has(word)) => {
                Strength::Strong
            }
            () => Strength::Weak,
        };
        Ok((Access { space, bytes, signed, address, offset, strength }, count))
    }
}

fn class_of(space: Space) -> Class {
    match space {
        Space::Generic | Space::Global => Class::Global,
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Param => Class::Integer,
    }
}
