//! `ltm completions` and `ltm man`: files generated from the command line's definition.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap_complete::Shell;

use crate::command;

const NAME: &str = "ltm";

/// Arguments of `completions`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ltm completions bash > ~/.local/share/bash-completion/completions/ltm
  ltm completions fish > ~/.config/fish/completions/ltm.fish
  ltm completions zsh > ~/.zfunc/_ltm")]
pub struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  ltm man ~/.local/share/man/man1 && man ltm-train")]
pub struct ManArgs {
    /// Folder to write to; it is created if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn completions(args: CompletionsArgs) -> anyhow::Result<ExitCode> {
    outln!("{}", script(args.shell).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(args: ManArgs) -> anyhow::Result<ExitCode> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command(), dir))
        .with_context(|| format!("{}: cannot write manual pages", dir.display()))?;
    outln!("manual pages  {}", dir.display())?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_a_script() {
        command().debug_assert();
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["ltm", "generate", "prompt-file", "completions"] {
                assert!(script.contains(word), "{shell}: `{word}` is not in\n{script}");
            }
        }
    }

    #[test]
    fn every_verb_has_a_manual_page() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("share/man/man1");
        man(ManArgs { dir: dir.clone() }).expect("written");
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect(name);
        for verb in command().get_subcommands() {
            let name = verb.get_name();
            let page = read(&format!("ltm-{name}.1"));
            assert!(page.starts_with(".ie") && page.contains(name), "{page}");
        }
        assert!(read("ltm-generate.1").contains("prompt\\-file"));
        assert!(read("ltm.1").contains("Latent Thought Model"));
        let file = dir.join("ltm.1");
        let error = man(ManArgs { dir: file.clone() }).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}
