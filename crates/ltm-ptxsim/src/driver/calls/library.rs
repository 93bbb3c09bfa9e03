//! Libraries and kernels.

use std::ffi::c_char;
use std::sync::{Arc, Mutex};

use crate::driver::code::{Code, Outcome};
use crate::driver::context::Context;
use crate::driver::device::{check_device, require_init};
use crate::driver::ffi::{Image, Name, Out};
use crate::driver::handle::{Handle, locked};
use crate::driver::library::{KERNELS, LIBRARIES, Library, function_of};
use crate::driver::module::{self, FUNCTIONS, MODULES};

fn load(library_out: &Out<Handle>, ptx: &str) -> Outcome<()> {
    require_init()?;
    let library = Library {
        program: module::parse(ptx)?,
        modules: Mutex::default(),
        kernels: Mutex::default(),
    };
    library_out.set(LIBRARIES.insert(Arc::new(library)))
}

driver_functions! {
    fn cuLibraryLoadData(
        library_out: Out<Handle>,
        image: Image,
        jit_options: usize,
        jit_values: usize,
        jit_count: u32,
        options: usize,
        values: usize,
        count: u32,
    ) {
        // The options configure a JIT compiler, which does not exist here, and lazy loading.
        let _ = (jit_options, jit_values, jit_count, options, values, count);
        load(&library_out, image.ptx()?)
    }

    fn cuLibraryLoadFromFile(
        library_out: Out<Handle>,
        path: Name,
        jit_options: usize,
        jit_values: usize,
        jit_count: u32,
        options: usize,
        values: usize,
        count: u32,
    ) {
        let _ = (jit_options, jit_values, jit_count, options, values, count);
        let path = path.text()?;
        let ptx = std::fs::read_to_string(path)
            .map_err(|error| Code::FileNotFound.because(format!("cannot read {path}: {error}")))?;
        load(&library_out, &ptx)
    }

    fn cuLibraryUnload(library: Handle) {
        require_init()?;
        let library = LIBRARIES.remove(library)?;
        KERNELS.retain(|kernel| !Arc::ptr_eq(&kernel.library, &library));
        for handle in locked(&library.modules).values() {
            if let Ok(module) = MODULES.remove(*handle) {
                FUNCTIONS.retain(|function| !Arc::ptr_eq(&function.module, &module));
            }
        }
        Ok(())
    }

    fn cuLibraryGetKernel(kernel_out: Out<Handle>, library_handle: Handle, name: Name) {
        require_init()?;
        let library = LIBRARIES.get(library_handle)?;
        kernel_out.set(library.kernel(library_handle, name.text()?)?)
    }

    fn cuLibraryGetKernelCount(count: Out<u32>, library: Handle) {
        require_init()?;
        count.set(LIBRARIES.get(library)?.program.entries().len() as u32)
    }

    fn cuLibraryEnumerateKernels(kernels: Out<Handle>, room: u32, library_handle: Handle) {
        require_init()?;
        let library = LIBRARIES.get(library_handle)?;
        let names = library.program.entries().iter().take(room as usize);
        let handles: Vec<_> =
            names.map(|entry| library.kernel(library_handle, &entry.name)).collect::<Result<_, _>>()?;
        kernels.set_all(&handles, room as usize)
    }

    fn cuLibraryGetModule(module_out: Out<Handle>, library: Handle) {
        let context = Context::usable()?;
        module_out.set(LIBRARIES.get(library)?.module_in(&context)?)
    }

    fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: Handle, name: Name) {
        let context = Context::usable()?;
        let module = LIBRARIES.get(library)?.module_in(&context)?;
        module::global_of(&*MODULES.get(module)?, &name, &address, &bytes)
    }

    fn cuKernelGetFunction(function_out: Out<Handle>, kernel: Handle) {
        let context = Context::usable()?;
        function_out.set(KERNELS.get(kernel)?.function_handle(&context)?)
    }

    fn cuKernelGetLibrary(library_out: Out<Handle>, kernel: Handle) {
        require_init()?;
        library_out.set(KERNELS.get(kernel)?.library_handle)
    }

    fn cuKernelGetName(name: Out<*const c_char>, kernel: Handle) {
        require_init()?;
        name.set(KERNELS.get(kernel)?.name.as_ptr())
    }

    fn cuKernelGetParamInfo(kernel: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        require_init()?;
        let kernel = KERNELS.get(kernel)?;
        let entry = kernel.library.program.entry(&kernel.name.to_string_lossy());
        let param = entry.and_then(|entry| entry.params.get(index)).ok_or(Code::InvalidValue)?;
        offset.set(param.offset as usize)?;
        size.set_if_wanted(param.size as usize);
        Ok(())
    }

    fn cuKernelGetAttribute(value: Out<i32>, number: u32, kernel: Handle, device: i32) {
        check_device(device)?;
        let context = Context::usable()?;
        value.set(module::attribute(&*function_of(&context, kernel)?, number)?)
    }

    fn cuKernelSetAttribute(number: u32, value: i32, kernel: Handle, device: i32) {
        check_device(device)?;
        let context = Context::usable()?;
        module::set_attribute(&*function_of(&context, kernel)?, number, value)
    }

    fn cuKernelSetCacheConfig(kernel: Handle, preference: u32, device: i32) {
        check_device(device)?;
        KERNELS.get(kernel)?;
        // Preferences 0 to 3 exist; none changes any result.
        if preference > 3 { Err(Code::InvalidValue.into()) } else { Ok(()) }
    }
}
