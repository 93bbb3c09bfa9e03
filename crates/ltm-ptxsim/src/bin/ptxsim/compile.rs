//! Loads the program of a file: PTX directly, CUDA through NVRTC if it is installed.

use std::path::{Path, PathBuf};

use clap::Args;
use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};
use ltm_ptxsim::Program;

use crate::Outcome;

#[derive(Args)]
#[command(next_help_heading = "CUDA files")]
pub struct Flags {
    /// Directory to search for headers, repeatable
    #[arg(long = "include", short = 'I', value_name = "DIR")]
    include: Vec<PathBuf>,
    /// Define a macro, repeatable
    #[arg(long = "define", short = 'D', value_name = "NAME[=VALUE]")]
    define: Vec<String>,
    /// Option for NVRTC, repeatable
    #[arg(long = "nvrtc", value_name = "OPTION", allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Flags {
    /// Loads a file, compiling CUDA for the given compute capability.
    pub fn program(&self, file: &Path, capability: (u32, u32)) -> Outcome<Program> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let is_cuda =
            file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("cu"));
        let ptx = if is_cuda { self.compile(file, &text, capability)? } else { text };
        Ok(Program::parse(&ptx).map_err(|error| format!("{}: {error}", file.display()))?)
    }

    #[expect(unsafe_code, reason = "the one call of a library that may be missing")]
    fn compile(&self, file: &Path, text: &str, (major, minor): (u32, u32)) -> Outcome<String> {
        // SAFETY: the call only opens and closes the library, which runs no code when opened.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            return Err(format!(
                "{}: CUDA files are compiled by NVRTC, which was not found; install the CUDA toolkit \
                 or `pip install nvidia-cuda-nvrtc`, and put the folder with libnvrtc.so into \
                 LD_LIBRARY_PATH, or compile the file with `nvcc --ptx`",
                file.display()
            )
            .into());
        }
        let mut options =
            vec![format!("--gpu-architecture=compute_{major}{minor}"), "-lineinfo".into()];
        options.extend(self.define.iter().map(|define| format!("--define-macro={define}")));
        options.extend(self.options.iter().cloned());
        let folder = file.parent().unwrap_or(Path::new("."));
        let include = self.include.iter().map(PathBuf::as_path).chain([folder]);
        let options = CompileOptions {
            include_paths: include.map(|path| path.display().to_string()).collect(),
            options,
            name: Some(file.display().to_string()),
            ..CompileOptions::default()
        };
        match compile_ptx_with_opts(text, options) {
            Ok(ptx) => Ok(ptx.to_src()),
            Err(CompileError::CompileError { log, .. }) => Err(format!(
                "{}: NVRTC reports errors\n{}",
                file.display(),
                log.to_string_lossy().trim_end()
            )
            .into()),
            Err(error) => Err(format!("{}: NVRTC: {error}", file.display()).into()),
        }
    }
}
