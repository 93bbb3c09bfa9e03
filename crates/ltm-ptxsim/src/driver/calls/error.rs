//! Error handling: names and texts of codes.

use std::ffi::c_char;

use crate::driver::code::{Code, text_of};
use crate::driver::ffi::Out;

driver_functions! {
    fn cuGetErrorName(error: u32, name: Out<*const c_char>) {
        let text = text_of(error).map(|row| row.0.as_ptr());
        name.set(text.unwrap_or(std::ptr::null()))?;
        text.map(|_| ()).ok_or(Code::InvalidValue.into())
    }

    fn cuGetErrorString(error: u32, text_out: Out<*const c_char>) {
        let text = text_of(error).map(|row| row.1.as_ptr());
        text_out.set(text.unwrap_or(std::ptr::null()))?;
        text.map(|_| ()).ok_or(Code::InvalidValue.into())
    }
}
