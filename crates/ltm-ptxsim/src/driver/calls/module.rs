//! Modules and functions.

use std::ffi::c_char;
use std::sync::Arc;

use crate::driver::code::{Code, Outcome};
use crate::driver::context::Context;
use crate::driver::ffi::{Image, Name, Out};
use crate::driver::handle::Handle;
use crate::driver::library::{function_of, load_into};
use crate::driver::module::{
    FUNCTIONS, MODULES, attribute, function_in, global_of, parse, set_attribute,
};

fn load(module_out: Out<Handle>, ptx: &str) -> Outcome<()> {
    let context = Context::usable()?;
    module_out.set(load_into(&context, parse(ptx)?)?)
}

driver_functions! {
    fn cuModuleLoad(module_out: Out<Handle>, path: Name) {
        let path = path.text()?;
        let ptx = std::fs::read_to_string(path)
            .map_err(|error| Code::FileNotFound.because(format!("cannot read {path}: {error}")))?;
        load(module_out, &ptx)
    }

    fn cuModuleLoadData(module_out: Out<Handle>, image: Image) {
        load(module_out, image.ptx()?)
    }

    fn cuModuleLoadDataEx(
        module_out: Out<Handle>,
        image: Image,
        option_count: u32,
        options: usize,
        values: usize,
    ) {
        // The options configure a JIT compiler, which does not exist here; errors go to stderr.
        let _ = (option_count, options, values);
        load(module_out, image.ptx()?)
    }

    fn cuModuleUnload(module: Handle) {
        let context = Context::current()?;
        let module = MODULES.remove(module)?;
        FUNCTIONS.retain(|function| !Arc::ptr_eq(&function.module, &module));
        context.check_fault()
    }

    fn cuModuleGetFunction(function_out: Out<Handle>, module_handle: Handle, name: Name) {
        Context::usable()?;
        function_out.set(function_in(module_handle, name.text()?)?)
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Name) {
        Context::usable()?;
        global_of(&*MODULES.get(module)?, &name, &address, &bytes)
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        // Eager: a module is completely loaded at once.
        mode.set(1)
    }

    fn cuFuncGetName(name: Out<*const c_char>, function: Handle) {
        name.set(FUNCTIONS.get(function)?.name.as_ptr())
    }

    fn cuFuncGetModule(module: Out<Handle>, function: Handle) {
        module.set(FUNCTIONS.get(function)?.module_handle)
    }

    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        let function = FUNCTIONS.get(function)?;
        let param = function.entry().params.get(index).ok_or(Code::InvalidValue)?;
        offset.set(param.offset as usize)?;
        size.set_if_wanted(param.size as usize);
        Ok(())
    }

    fn cuFuncGetAttribute(value: Out<i32>, number: u32, function: Handle) {
        let context = Context::usable()?;
        value.set(attribute(&*function_of(&context, function)?, number)?)
    }

    fn cuFuncSetAttribute(function: Handle, number: u32, value: i32) {
        let context = Context::usable()?;
        set_attribute(&*function_of(&context, function)?, number, value)
    }

    fn cuFuncSetCacheConfig(function: Handle, preference: u32) {
        Context::usable()?;
        FUNCTIONS.get(function)?;
        // Preferences 0 to 3 exist; none changes any result.
        if preference > 3 { Err(Code::InvalidValue.into()) } else { Ok(()) }
    }
}
