//! Decoded instructions: operands are register indices, branch targets are instruction indices.
//! Must not know text or execution.

use std::sync::Arc;

use crate::memory::Space;
use crate::report::Class;
use crate::text::Frames;
use crate::values::{Alu, Carried, Compare, Convert, Mma};

/// Index of a register; constants and special registers have one too.
pub(crate) type Reg = u32;
/// Index of a predicate.
pub(crate) type Pred = u32;

#[derive(Clone, Debug)]
pub(crate) struct Inst {
    /// A predicate, and whether it is negated.
    pub guard: Option<(Pred, bool)>,
    pub op: Op,
    /// Operands that may be unwritten and are checked at run time.
    pub watch: Option<Box<Watch>>,
    pub class: Class,
    /// Floating-point operations per lane.
    pub flops: u64,
    pub line: u32,
    pub text: Arc<str>,
    pub source: Option<Frames>,
}

/// What to check at an instruction, as indices into the warp's record of written registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    /// The guard, which every lane reads.
    pub guard: Option<u32>,
    /// Operands that may be unwritten.
    pub reads: Vec<u32>,
    pub writes: Vec<u32>,
    pub copy: Copy,
}

/// How an unwritten operand affects the instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Copy {
    /// Reading it is a fault.
    #[default]
    Not,
    /// The target becomes unwritten too.
    All,
    /// The target takes the state of the operand that the predicate selects.
    Select { p: Condition, a: Option<u32>, b: Option<u32> },
    /// The first target takes the state of the operand in the source lane.
    Lanes { d: Option<u32>, a: Option<u32> },
}

/// A predicate as a source: its index, and whether it is negated.
pub(crate) type Condition = (Pred, bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
    Not,
    Mov,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    Add,
    AddF32,
    AddF64,
    AddF16,
    AddBF16,
    AddF16x2,
    AddBF16x2,
    Increment,
    Decrement,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteKind {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Popc,
    And,
    Or,
}

/// Address and element type of a memory access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub space: Space,
    /// Bytes of one element.
    pub bytes: u32,
    pub signed: bool,
    pub address: Reg,
    pub offset: i64,
    pub strength: Strength,
}

/// How an access orders accesses of other blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strength {
    /// Not at all.
    Weak,
    /// Only together with a fence.
    Strong,
    /// Like a strong access with a fence before it.
    Release,
}

/// Functions of the CUDA runtime that `printf` and `assert` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Print,
    /// Arguments: the condition's text, the file, the line and the function.
    AssertFail,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alu {
        alu: Alu,
        d: Reg,
        s: [Reg; 3],
    },
    Lop3 {
        table: u8,
        d: Reg,
        s: [Reg; 3],
    },
    Bfi {
        bits: u32,
        d: Reg,
        s: [Reg; 4],
    },
    Shf {
        left: bool,
        wrap: bool,
        d: Reg,
        s: [Reg; 3],
    },
    /// Addition that reads the carry of an earlier one, or writes its own.
    Carry {
        kind: Carried,
        /// Bits of the type, and whether it is signed.
        ty: (u32, bool),
        d: Reg,
        s: [Reg; 3],
        takes: Option<Pred>,
        leaves: Option<Pred>,
    },
    Convert {
        convert: Convert,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Mov {
        d: Reg,
        a: Reg,
    },
    /// `parts` are in order, lowest bits first.
    Pack {
        d: Reg,
        parts: Vec<Reg>,
        bits: u32,
    },
    Unpack {
        parts: Vec<Option<Reg>>,
        a: Reg,
        bits: u32,
    },
    Setp {
        compare: Compare,
        d: Pred,
        d2: Option<Pred>,
        a: Reg,
        b: Reg,
        with: Option<(Logic, Condition)>,
    },
    /// Writes `value` if the comparison holds, otherwise 0.
    Set {
        compare: Compare,
        d: Reg,
        a: Reg,
        b: Reg,
        with: Option<(Logic, Condition)>,
        value: u64,
        /// Whether each half of the operands is compared separately.
        packed: bool,
    },
    Selp {
        d: Reg,
        a: Reg,
        b: Reg,
        p: Condition,
    },
    Logic {
        logic: Logic,
        d: Pred,
        a: Condition,
        b: Condition,
    },
    IsSpace {
        d: Pred,
        a: Reg,
        space: Space,
    },
    Bra {
        target: u32,
    },
    BrxIdx {
        index: Reg,
        targets: Vec<u32>,
    },
    Exit,
    Trap,
    Nop,
    /// Orders earlier accesses before later ones, as other blocks see them.
    Fence,
    Builtin {
        builtin: Builtin,
        d: Option<Reg>,
        args: Vec<Reg>,
    },
    Barrier {
        kind: BarrierKind,
        id: Reg,
        count: Option<Reg>,
        d: Option<Reg>,
        dp: Option<Pred>,
        p: Option<Condition>,
    },
    WarpSync {
        mask: Reg,
    },
    Load {
        access: Access,
        d: Vec<Option<Reg>>,
    },
    Store {
        access: Access,
        s: Vec<Reg>,
    },
    Atomic {
        access: Access,
        update: Update,
        d: Option<Reg>,
        a: Reg,
        b: Option<Reg>,
    },
    CopyAsync {
        to: Reg,
        to_offset: i64,
        from: Reg,
        from_offset: i64,
        bytes: u32,
        valid: Option<Reg>,
    },
    CopyCommit,
    /// Waits until at most `pending` groups are unfinished; `None` waits for all.
    CopyWait {
        pending: Option<u32>,
    },
    LoadMatrix {
        d: Vec<Reg>,
        transposed: bool,
        address: Reg,
        offset: i64,
    },
    StoreMatrix {
        s: Vec<Reg>,
        transposed: bool,
        address: Reg,
        offset: i64,
    },
    Mma {
        mma: Mma,
        d: [Reg; 4],
        a: Vec<Reg>,
        b: Vec<Reg>,
        c: [Reg; 4],
    },
    Shuffle {
        kind: Shuffle,
        d: Reg,
        p: Option<Pred>,
        a: Reg,
        lane: Reg,
        clamp: Reg,
        mask: Reg,
    },
    Vote {
        kind: VoteKind,
        d: Reg,
        dp: Option<Pred>,
        p: Condition,
        mask: Reg,
    },
    /// Finds the lanes with the same value.
    Match {
        /// Whether the value must be the same in all lanes (`match.all`).
        all: bool,
        bits: u32,
        d: Reg,
        dp: Option<Pred>,
        a: Reg,
        mask: Reg,
    },
    Reduce {
        alu: Alu,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    /// A clock register, shifted right by `shift` bits.
    Clock {
        d: Reg,
        shift: u32,
    },
}

/// A register's value before the first instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Initial {
    Value(u64),
    /// Address of a module variable, plus an offset.
    Variable(String, i64),
    /// Start of dynamic shared memory, plus an offset.
    DynamicShared(i64),
    /// A special register, such as `tid.x`.
    Special(String),
}

/// The instructions of an entry and the state they start from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub insts: Vec<Inst>,
    pub n_registers: usize,
    pub n_predicates: usize,
    pub initial: Vec<(Reg, Initial)>,
    pub local_bytes: u32,
    /// Names of the watched registers, for messages.
    pub watched: Vec<String>,
    /// The predicate that is always true, if constants need one.
    pub always: Option<Pred>,
    /// Whether any instruction orders accesses of different blocks.
    pub orders_blocks: bool,
}
