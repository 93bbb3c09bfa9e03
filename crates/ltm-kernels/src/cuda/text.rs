//! The texts that are compiled: those of `kernels/`, built in or read from a folder, and others. Knows no compiler.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::registry::{self, File, folder};
use crate::{Error, Result};

/// Something to compile.
pub(super) struct Text<'a> {
    /// Its name in messages, such as `kernels/rope/fwd_v1_naive.cu`.
    pub name: Cow<'a, str>,
    pub text: Cow<'a, str>,
}

/// What a text may include.
pub(super) struct Header {
    /// The name that stands in the include, such as `common/map.cuh`.
    pub name: Cow<'static, str>,
    pub text: Cow<'static, str>,
}

/// The folder that `LTM_KERNELS_DIR` names, if it names one.
fn named_folder() -> Option<PathBuf> {
    std::env::var_os("LTM_KERNELS_DIR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A file of `kernels/`.
pub(super) fn shipped(file: &'static File) -> Result<Text<'static>> {
    let (name, text) = match named_folder() {
        None => (format!("kernels/{}", file.name), file.text.into()),
        Some(folder) => {
            let path = folder.join(file.name);
            (path.display().to_string(), folder::text(&path).map_err(unreadable)?.into())
        }
    };
    Ok(Text { name: name.into(), text })
}

/// Every header, in order of name.
pub(super) fn headers() -> Result<Vec<Header>> {
    match named_folder() {
        None => {
            let built_in = |(name, text): &(&'static str, &'static str)| Header {
                name: (*name).into(),
                text: (*text).into(),
            };
            Ok(registry::HEADERS.iter().map(built_in).collect())
        }
        Some(folder) => {
            let texts = folder::texts(&folder, "cuh").map_err(unreadable)?;
            let header =
                |(name, text): (String, String)| Header { name: name.into(), text: text.into() };
            Ok(texts.into_iter().map(header).collect())
        }
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Cuda { call: "read kernels (LTM_KERNELS_DIR)".into(), reason: error.to_string() }
}
