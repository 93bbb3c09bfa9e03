//! The arguments of a C caller, as types with safe methods.
//!
//! This is the only file of the driver that dereferences pointers. Each type wraps a raw pointer as
//! the CUDA manual describes it. Only the C calling convention makes values of these types (their
//! fields are private), and null is rejected. That any other pointer is valid for the documented
//! length is the responsibility of the C caller, as with any CUDA driver; the comments below call
//! this the caller's promise. The file must not know what the driver does with the values.

use std::ffi::{CStr, c_char, c_void};

use super::code::{Code, Outcome};
use crate::Param;

/// A pointer to where the caller wants a result.
#[repr(transparent)]
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// A null pointer, for calls without this argument.
    pub(super) fn none() -> Out<T> {
        Out(std::ptr::null_mut())
    }

    /// An untyped pointer; another argument determines the type.
    pub(super) fn from_void(pointer: *mut c_void) -> Out<T> {
        Out(pointer.cast())
    }

    /// Stores the result; a null pointer is `CUDA_ERROR_INVALID_VALUE`.
    pub(super) fn set(&self, value: T) -> Outcome<()> {
        if self.0.is_null() {
            return Err(Code::InvalidValue.because("a result pointer is null"));
        }
        // SAFETY: not null, and the caller's promise: valid for one write of T.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Stores a result that the caller may decline by passing null.
    pub(super) fn set_if_wanted(&self, value: T) {
        if self.is_wanted() {
            // SAFETY: not null, and the caller's promise: valid for one write of T.
            unsafe { self.0.write(value) };
        }
    }

    /// Whether the pointer is not null.
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.is_null()
    }

    /// Reads the current value, for arguments that are both input and output.
    pub(super) fn get(&self) -> Outcome<T>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return Err(Code::InvalidValue.because("an argument pointer is null"));
        }
        // SAFETY: not null, and the caller's promise: points to one T.
        Ok(unsafe { self.0.read() })
    }

    /// Stores as many of `values` as fit into the caller's array of `room` elements.
    pub(super) fn set_all(&self, values: &[T], room: usize) -> Outcome<()>
    where
        T: Copy,
    {
        let count = values.len().min(room);
        if count > 0 && self.0.is_null() {
            return Err(Code::InvalidValue.because("a result pointer is null"));
        }
        for (index, value) in values[..count].iter().enumerate() {
            // SAFETY: not null, and the caller's promise: an array of `room` elements.
            unsafe { self.0.add(index).write(*value) };
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Stores `text` with a terminating zero, truncated to `room` bytes.
    pub(super) fn set_text(&self, text: &str, room: i32) -> Outcome<()> {
        let room = usize::try_from(room).ok().filter(|room| *room > 0);
        let room = room.ok_or(Code::InvalidValue.because("the text buffer has no room"))?;
        let mut bytes: Vec<c_char> =
            text.bytes().take(room - 1).map(|byte| byte as c_char).collect();
        bytes.push(0);
        self.set_all(&bytes, room)
    }
}

/// A zero-terminated string.
#[repr(transparent)]
pub(super) struct Name(*const c_char);

impl Name {
    /// The string; null and text that is not UTF-8 are `CUDA_ERROR_INVALID_VALUE`.
    pub(super) fn text(&self) -> Outcome<&str> {
        if self.0.is_null() {
            return Err(Code::InvalidValue.because("a name is null"));
        }
        // SAFETY: not null, and the caller's promise: zero-terminated.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::InvalidValue.because("a name is not UTF-8"))
    }
}

/// A module image: zero-terminated PTX, or an ELF or fat binary, whose header contains its length.
#[repr(transparent)]
pub(super) struct Image(*const c_void);

impl Image {
    /// The PTX text; a binary image is `CUDA_ERROR_NO_BINARY_FOR_GPU`.
    pub(super) fn ptx(&self) -> Outcome<&str> {
        const ELF: [u8; 4] = [0x7f, b'E', b'L', b'F'];
        const FAT_BINARY: [u8; 4] = [0x50, 0xed, 0x55, 0xba];
        if self.0.is_null() {
            return Err(Code::InvalidValue.because("the module image is null"));
        }
        let mut magic = [0u8; 4];
        for (index, byte) in magic.iter_mut().enumerate() {
            // SAFETY: not null; the caller's promise: zero-terminated or at least a header long,
            // and the loop stops at a zero.
            *byte = unsafe { self.0.cast::<u8>().add(index).read() };
            if *byte == 0 {
                break;
            }
        }
        if magic == ELF || magic == FAT_BINARY {
            return Err(Code::NoBinaryForGpu
                .answers("the simulator runs PTX, not machine code; load the PTX of this module"));
        }
        // SAFETY: not null and not a binary, so by the caller's promise zero-terminated.
        let text = unsafe { CStr::from_ptr(self.0.cast()) };
        text.to_str().map_err(|_| Code::InvalidPtx.because("the PTX is not UTF-8"))
    }
}

/// Host memory to copy from.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct HostSource(*const c_void);

// SAFETY: the pointer is only followed while the caller's promise holds, on whichever thread.
unsafe impl Send for HostSource {}
// SAFETY: as above; it is only read through.
unsafe impl Sync for HostSource {}

impl HostSource {
    /// Wraps the host address in a unified address, for copies that take two unified addresses.
    pub(super) fn from_address(address: u64) -> HostSource {
        HostSource(address as usize as *const c_void)
    }

    /// The `count` bytes that are there now.
    pub(super) fn bytes(&self, count: usize) -> Outcome<&[u8]> {
        if count == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() {
            return Err(Code::InvalidValue.because("the host source is null"));
        }
        // SAFETY: not null, and the caller's promise: `count` readable bytes.
        Ok(unsafe { std::slice::from_raw_parts(self.0.cast(), count) })
    }
}

/// Host memory to copy to.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct HostTarget(*mut c_void);

// SAFETY: the pointer is only followed while the caller's promise holds, on whichever thread.
unsafe impl Send for HostTarget {}
// SAFETY: as above; two writers at once break the caller's promise, not ours.
unsafe impl Sync for HostTarget {}

impl HostTarget {
    /// Wraps the host address in a unified address, for copies that take two unified addresses.
    pub(super) fn from_address(address: u64) -> HostTarget {
        HostTarget(address as usize as *mut c_void)
    }

    /// Copies `data` there.
    pub(super) fn write(&self, data: &[u8]) -> Outcome<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.0.is_null() {
            return Err(Code::InvalidValue.because("the host target is null"));
        }
        // SAFETY: not null, and the caller's promise: writable for as many bytes as it asked to
        // copy; `data` is our own buffer, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.0.cast::<u8>(), data.len()) };
        Ok(())
    }
}

/// The two ways to pass arguments to `cuLaunchKernel`: one pointer per parameter, or one packed
/// buffer.
#[derive(Clone, Copy)]
pub(super) struct KernelArguments {
    pub(super) pointers: PointerArray,
    pub(super) extra: PointerArray,
}

/// An array of pointers; its length is known from elsewhere.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct PointerArray(*const *const c_void);

/// The tags in `extra`, numbered as in the CUDA headers.
const LAUNCH_PARAM_END: usize = 0;
const LAUNCH_PARAM_BUFFER_POINTER: usize = 1;
const LAUNCH_PARAM_BUFFER_SIZE: usize = 2;

impl KernelArguments {
    /// Builds the packed parameter block, with each parameter at its offset.
    pub(super) fn pack(&self, params: &[Param]) -> Outcome<Vec<u8>> {
        let bytes = params.iter().map(|param| param.offset + param.size).max().unwrap_or(0);
        let mut block = vec![0u8; bytes as usize];
        if !self.extra.0.is_null() {
            if !self.pointers.0.is_null() {
                return Err(
                    Code::InvalidValue.because("kernelParams and extra are both given; pass one")
                );
            }
            let given = self.packed_buffer()?;
            if given.len() < block.len() {
                return Err(Code::InvalidValue.because(format!(
                    "the parameter buffer has {} bytes, the kernel takes {}",
                    given.len(),
                    block.len()
                )));
            }
            block.copy_from_slice(&given[..bytes as usize]);
            return Ok(block);
        }
        if !params.is_empty() && self.pointers.0.is_null() {
            return Err(Code::InvalidValue
                .because(format!("kernelParams is null, the kernel takes {}", params.len())));
        }
        for (index, param) in params.iter().enumerate() {
            // SAFETY: not null, and the caller's promise: one pointer for each parameter.
            let argument = unsafe { self.pointers.0.add(index).read() };
            if argument.is_null() {
                return Err(Code::InvalidValue.because(format!("kernelParams[{index}] is null")));
            }
            let place = &mut block[param.offset as usize..(param.offset + param.size) as usize];
            // SAFETY: not null, and the caller's promise: points to a value of the parameter's
            // size; `place` has exactly that size and is our own.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    argument.cast::<u8>(),
                    place.as_mut_ptr(),
                    place.len(),
                );
            }
        }
        Ok(block)
    }

    /// Finds the buffer in `extra`, a list of pairs of tag and value.
    fn packed_buffer(&self) -> Outcome<&[u8]> {
        let (mut buffer, mut bytes) = (std::ptr::null::<c_void>(), None);
        // There are two tags, each at most once, so a longer list is malformed.
        for pair in 0..3 {
            // SAFETY: not null; the caller's promise: pairs up to LAUNCH_PARAM_END, at which the
            // loop stops.
            let tag = unsafe { self.extra.0.add(2 * pair).read() } as usize;
            if tag == LAUNCH_PARAM_END {
                break;
            }
            // SAFETY: as above: a tag other than the last is followed by a value.
            let value = unsafe { self.extra.0.add(2 * pair + 1).read() };
            match tag {
                LAUNCH_PARAM_BUFFER_POINTER => buffer = value,
                LAUNCH_PARAM_BUFFER_SIZE if !value.is_null() => {
                    // SAFETY: not null, and the caller's promise: points to the size.
                    bytes = Some(unsafe { value.cast::<usize>().read() });
                }
                _ => return Err(Code::InvalidValue.because("extra contains an unknown tag")),
            }
        }
        match (buffer.is_null(), bytes) {
            // SAFETY: not null, and the caller's promise: `bytes` readable bytes.
            (false, Some(bytes)) => Ok(unsafe { std::slice::from_raw_parts(buffer.cast(), bytes) }),
            _ => Err(Code::InvalidValue.because("extra must contain a buffer and its size")),
        }
    }
}

/// A function of the caller, with its argument, to run in stream order.
#[derive(Clone, Copy)]
pub(super) struct HostCall {
    pub(super) function: Option<HostFunction>,
    pub(super) argument: *mut c_void,
}

/// The callback type of `cuLaunchHostFunc`.
pub(super) type HostFunction = unsafe extern "C" fn(*mut c_void);

// SAFETY: CUDA runs host functions on a thread of its own, so the caller has to allow for any.
unsafe impl Send for HostCall {}
// SAFETY: as above.
unsafe impl Sync for HostCall {}

impl HostCall {
    /// Calls it.
    pub(super) fn run(&self) -> Outcome<()> {
        let function = self.function.ok_or(Code::InvalidValue.because("the function is null"))?;
        // SAFETY: not null, and the caller's promise: callable with the argument it was given with.
        unsafe { function(self.argument) };
        Ok(())
    }
}

/// `CUlaunchConfig` of the CUDA headers.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LaunchDescription {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) stream: usize,
    attributes: *const LaunchAttribute,
    attribute_count: u32,
}

/// `CUlaunchAttribute`: id and value.
#[repr(C, align(8))]
struct LaunchAttribute {
    id: u32,
    padding: [u8; 4],
    value: [u8; 64],
}

impl LaunchDescription {
    /// The ids of the attributes.
    pub(super) fn attribute_ids(&self) -> Vec<u32> {
        if self.attributes.is_null() {
            return Vec::new();
        }
        // SAFETY: not null, and the caller's promise: an array of `attribute_count` attributes.
        (0..self.attribute_count as usize)
            .map(|index| unsafe { (*self.attributes.add(index)).id })
            .collect()
    }
}

/// Page-locked host memory given to the caller; freed when dropped.
pub(super) struct HostAllocation {
    start: *mut u8,
    layout: std::alloc::Layout,
}

// SAFETY: an owned allocation; nothing here is tied to a thread.
unsafe impl Send for HostAllocation {}

impl HostAllocation {
    /// `bytes` zeroed bytes, aligned to a page.
    pub(super) fn new(bytes: usize) -> Outcome<HostAllocation> {
        let layout = std::alloc::Layout::from_size_align(bytes, 4096);
        let layout = layout.ok().filter(|_| bytes > 0).ok_or(
            Code::InvalidValue.because(format!("cannot allocate {bytes} bytes of host memory")),
        )?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        if start.is_null() {
            return Err(Code::OutOfMemory
                .because(format!("the host has no {bytes} bytes of memory to allocate")));
        }
        Ok(HostAllocation { start, layout })
    }

    /// Its address.
    pub(super) fn address(&self) -> usize {
        self.start as usize
    }
}

impl Drop for HostAllocation {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed once.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
    }
}
