//! The error codes of the CUDA driver API that this library returns, with their names.
//!
//! Knows numbers, names and texts. Must not know when an error occurs.

use std::ffi::CStr;

use crate::MemoryError;

/// A `CUresult` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidValue = 1,
    OutOfMemory = 2,
    NotInitialized = 3,
    NoDevice = 100,
    InvalidDevice = 101,
    InvalidContext = 201,
    NoBinaryForGpu = 209,
    UnsupportedLimit = 215,
    InvalidPtx = 218,
    UnsupportedPtxVersion = 222,
    FileNotFound = 301,
    OperatingSystem = 304,
    InvalidHandle = 400,
    IllegalState = 401,
    NotFound = 500,
    NotReady = 600,
    IllegalAddress = 700,
    LaunchOutOfResources = 701,
    LaunchTimeout = 702,
    PrimaryContextActive = 708,
    ContextIsDestroyed = 709,
    Assert = 710,
    IllegalInstruction = 715,
    MisalignedAddress = 716,
    LaunchFailed = 719,
    NotSupported = 801,
    StreamCaptureUnsupported = 900,
    StreamCaptureInvalidated = 901,
    StreamCaptureMerge = 902,
    StreamCaptureUnmatched = 903,
    StreamCaptureUnjoined = 904,
    StreamCaptureIsolation = 905,
    StreamCaptureImplicit = 906,
    CapturedEvent = 907,
    StreamCaptureWrongThread = 908,
    Unknown = 999,
}

/// Each code with the strings that `cuGetErrorName` and `cuGetErrorString` return.
const CODES: &[(Code, &CStr, &CStr)] = &[
    (Code::InvalidValue, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (Code::OutOfMemory, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (Code::NotInitialized, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (Code::NoDevice, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (Code::InvalidDevice, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (Code::InvalidContext, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (
        Code::NoBinaryForGpu,
        c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        c"no kernel image is available for execution on the device",
    ),
    (
        Code::UnsupportedLimit,
        c"CUDA_ERROR_UNSUPPORTED_LIMIT",
        c"limit is not supported on this architecture",
    ),
    (Code::InvalidPtx, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
    (
        Code::UnsupportedPtxVersion,
        c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        c"the provided PTX was compiled with an unsupported toolchain.",
    ),
    (Code::FileNotFound, c"CUDA_ERROR_FILE_NOT_FOUND", c"file not found"),
    (
        Code::OperatingSystem,
        c"CUDA_ERROR_OPERATING_SYSTEM",
        c"OS call failed or operation not supported on this OS",
    ),
    (Code::InvalidHandle, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (
        Code::IllegalState,
        c"CUDA_ERROR_ILLEGAL_STATE",
        c"the operation cannot be performed in the present state",
    ),
    (Code::NotFound, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (Code::NotReady, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (
        Code::IllegalAddress,
        c"CUDA_ERROR_ILLEGAL_ADDRESS",
        c"an illegal memory access was encountered",
    ),
    (
        Code::LaunchOutOfResources,
        c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        c"too many resources requested for launch",
    ),
    (Code::LaunchTimeout, c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out and was terminated"),
    (
        Code::PrimaryContextActive,
        c"CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE",
        c"cannot set while device is active in this process",
    ),
    (Code::ContextIsDestroyed, c"CUDA_ERROR_CONTEXT_IS_DESTROYED", c"context is destroyed"),
    (Code::Assert, c"CUDA_ERROR_ASSERT", c"device-side assert triggered"),
    (
        Code::IllegalInstruction,
        c"CUDA_ERROR_ILLEGAL_INSTRUCTION",
        c"an illegal instruction was encountered",
    ),
    (Code::MisalignedAddress, c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address"),
    (Code::LaunchFailed, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
    (Code::NotSupported, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
    (
        Code::StreamCaptureUnsupported,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (
        Code::StreamCaptureInvalidated,
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"operation failed due to a previous error during capture",
    ),
    (
        Code::StreamCaptureMerge,
        c"CUDA_ERROR_STREAM_CAPTURE_MERGE",
        c"operation would result in a merge of separate capture sequences",
    ),
    (
        Code::StreamCaptureUnmatched,
        c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
        c"capture was not ended in the same stream as it began",
    ),
    (
        Code::StreamCaptureUnjoined,
        c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
        c"capturing stream has unjoined work",
    ),
    (
        Code::StreamCaptureIsolation,
        c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        c"dependency created on uncaptured work in another stream",
    ),
    (
        Code::StreamCaptureImplicit,
        c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
        c"operation would make the legacy stream depend on a capturing blocking stream",
    ),
    (
        Code::CapturedEvent,
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"operation not permitted on an event last recorded in a capturing stream",
    ),
    (
        Code::StreamCaptureWrongThread,
        c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
        c"attempt to terminate a thread-local capture sequence from another thread",
    ),
    (Code::Unknown, c"CUDA_ERROR_UNKNOWN", c"unknown error"),
];

/// Why a driver call failed: the code for the caller, and a message for stderr.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) story: Option<String>,
    /// Programs make this call to find out whether something exists, so this is not an error.
    pub(super) is_probe: bool,
}

/// The result of a driver function.
pub(super) type Outcome<T> = Result<T, Failure>;

impl Code {
    /// A failure with a message: what happened and what to do about it.
    pub(super) fn because(self, story: impl Into<String>) -> Failure {
        Failure { code: self, story: Some(story.into()), is_probe: false }
    }

    /// A negative answer to the question whether something exists.
    pub(super) fn answers(self, story: impl Into<String>) -> Failure {
        Failure { is_probe: true, ..self.because(story) }
    }

    /// The name in the CUDA headers.
    pub(super) fn name(self) -> &'static str {
        text_of(self as u32)
            .map_or("CUDA_ERROR_UNKNOWN", |(name, _)| name.to_str().expect("names are ASCII"))
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Failure {
        Failure { code, story: None, is_probe: false }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Failure {
        let code = match error {
            MemoryError::OutOfMemory { .. } => Code::OutOfMemory,
            _ => Code::InvalidValue,
        };
        code.because(error.to_string())
    }
}

/// The name and the text of a number.
pub(super) fn text_of(number: u32) -> Option<(&'static CStr, &'static CStr)> {
    if number == 0 {
        return Some((c"CUDA_SUCCESS", c"no error"));
    }
    CODES.iter().find(|row| row.0 as u32 == number).map(|row| (row.1, row.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_listed_once() {
        for (row, &(code, name, _)) in CODES.iter().enumerate() {
            assert_eq!(text_of(code as u32).map(|(found, _)| found), Some(name));
            assert!(CODES[..row].iter().all(|earlier| earlier.0 as u32 != code as u32), "{name:?}");
            assert!(name.to_bytes().starts_with(b"CUDA_ERROR_"));
        }
        assert_eq!(text_of(0).map(|(name, _)| name), Some(c"CUDA_SUCCESS"));
        assert_eq!(text_of(12345), None);
        assert_eq!(Code::LaunchFailed.name(), "CUDA_ERROR_LAUNCH_FAILED");
    }
}
