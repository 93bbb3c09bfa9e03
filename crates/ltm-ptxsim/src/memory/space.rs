//! The address spaces, and where they are in the generic one. Must not know what is in them.

/// Base address of shared memory in the generic address space.
pub(crate) const SHARED_WINDOW: u64 = 0x7f00_0000_0000;
/// Base address of local memory in the generic address space.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e00_0000_0000;

/// An address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// The address decides.
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// Splits an address into its space and the offset within it.
pub(crate) fn place(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic if address >= SHARED_WINDOW => (Space::Shared, address - SHARED_WINDOW),
        Space::Generic if address >= LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
        Space::Generic => (Space::Global, address),
        Space::Shared | Space::Local => (space, address & 0xffff_ffff),
        _ => (space, address),
    }
}

/// The space that a generic address is in.
pub(crate) fn space_of(address: u64) -> Space {
    place(Space::Generic, address).0
}
