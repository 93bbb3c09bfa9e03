//! The contract at the head of a kernel file, and the file's entry points. Knows text; must not know folders or the
//! compiler.
//!
//! Included by its path in the build script, which runs before there is a crate, and in `xtask`, which depends on none:
//! the rules and the table read a contract in the same way.

/// The keys that every contract has, each as `// key  text`.
pub const KEYS: &[&str] =
    &["math", "in", "out", "launch", "needs", "numeric", "cost", "twin", "budget"];

/// Further keys; `vs` is followed by the rung that the text compares with.
const OPTIONAL_KEYS: &[&str] = &["source", "vs"];

/// The element types that end the names of entry points.
const DTYPES: &[&str] = &["f32", "bf16", "f64", "i32", "i64"];

/// What the rest of the project reads of a kernel file `<op>/<pass>_v<rung>_<idea>.cu`.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    /// The folder's name.
    pub op: String,
    /// The rung in the file's name.
    pub rung: u32,
    /// How it is launched.
    pub launch: String,
    /// The conditions of a call, such as `[P1] C % 8 == 0`, without their explanations.
    pub needs: Vec<String>,
    /// What it may use.
    pub budget: Budget,
    /// Its `extern "C" __global__` functions, in order.
    pub entries: Vec<String>,
}

/// What a kernel may use on sm_80, from `// budget  regs 64; threads 256; smem 0; sass HMMA LDSM`.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Most registers of a thread.
    pub registers: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Most shared memory of a block in bytes, static and dynamic together.
    pub shared_bytes: u32,
    /// Mnemonics that the machine code must have.
    pub sass: Vec<String>,
}

/// What is wrong with a file, and in which line.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    pub line: usize,
    pub what: String,
}

impl Contract {
    /// Reads the file `name`, such as `rope/fwd_v1_naive.cu`; the error has every mistake, in order of line.
    pub fn read(name: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Mistakes(Vec::new());
        let (op, file) = name.split_once('/').unwrap_or(("", name));
        let rung = rung_of(file).unwrap_or_else(|| {
            mistakes.add(1, "the file's name is not `<pass>_v<rung>_<idea>.cu`".into());
            0
        });
        title(text, op, rung, &mut mistakes);
        let fields = fields(text, &mut mistakes);
        let needs = fields.iter().find(|field| field.key == "needs");
        let needs = needs.map_or_else(Vec::new, |field| read_needs(field, &mut mistakes));
        let field = |key| fields.iter().find(|field| field.key == key);
        let budget = field("budget").and_then(|field| {
            let budget = Budget::read(&field.text);
            budget.map_err(|what| mistakes.add(field.line, what)).ok()
        });
        let launch = field("launch").map(|field| field.text.clone());
        let entries = entries(text);
        if entries.is_empty() {
            mistakes.add(1, "has no `extern \"C\" __global__` function".into());
        }
        for (line, entry) in &entries {
            if !is_well_named(entry, op, rung) {
                let expected = format!("{op}_<pass>[_<part>]_<dtype>_v{rung}");
                let dtypes = DTYPES.join(", ");
                mistakes.add(*line, format!("`{entry}` is not `{expected}`; types: {dtypes}"));
            }
        }
        match (mistakes.0.is_empty(), launch, budget) {
            (true, Some(launch), Some(budget)) => {
                let entries = entries.into_iter().map(|(_, entry)| entry.to_owned()).collect();
                Ok(Self { op: op.into(), rung, launch, needs, budget, entries })
            }
            _ => {
                mistakes.0.sort_by_key(|mistake| mistake.line);
                Err(mistakes.0)
            }
        }
    }
}

impl Budget {
    /// From the text of the key `budget`.
    fn read(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(';').map(str::trim).collect();
        let [registers, threads, shared_bytes, sass] = parts[..] else {
            return Err(format!(
                "budget `{text}` has {} parts, expected `regs <n>; threads <n>; smem <bytes>; sass <mnemonics or ->`",
                parts.len()
            ));
        };
        let value = |part: &str, key: &str| {
            let value = part.strip_prefix(key).map(str::trim).and_then(|text| text.parse().ok());
            value.ok_or_else(|| format!("budget: expected `{key} <n>`, got `{part}`"))
        };
        let sass = sass
            .strip_prefix("sass ")
            .ok_or_else(|| format!("budget: expected `sass <mnemonics or ->`, got `{sass}`"))?;
        Ok(Self {
            registers: value(registers, "regs")?,
            threads: value(threads, "threads")?,
            shared_bytes: value(shared_bytes, "smem")?,
            sass: sass.split_whitespace().filter(|word| *word != "-").map(Into::into).collect(),
        })
    }
}

struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, line: usize, what: String) {
        self.0.push(Mistake { line, what });
    }
}

/// A key with its text, whose lines are joined by two spaces.
struct Field<'a> {
    line: usize,
    key: &'a str,
    text: String,
}

/// The first line: `// <op> / <pass> / v<rung>: <idea>`.
fn title(text: &str, op: &str, rung: u32, mistakes: &mut Mistakes) {
    let line = text.lines().next().unwrap_or_default();
    let names = line.strip_prefix("// ").and_then(|line| line.split_once(':'));
    let parts: Vec<_> = names.map_or("", |(names, _)| names).split(" / ").collect();
    let is_of_file = |rungs: &str| rungs.split(' ').any(|word| word == format!("v{rung}"));
    if !matches!(parts[..], [of, _, rungs] if of == op && is_of_file(rungs)) {
        mistakes.add(1, format!("does not begin with `// {op} / <pass> / v{rung}: <idea>`"));
    }
}

/// The keys of the header, which ends with the first line that is no comment.
fn fields<'a>(text: &'a str, mistakes: &mut Mistakes) -> Vec<Field<'a>> {
    let mut fields: Vec<Field<'a>> = Vec::new();
    let header = text.lines().map_while(|line| line.strip_prefix("//"));
    for (number, line) in (1..).zip(header).skip(1) {
        let is_continued = line.starts_with("     ");
        let line = line.trim();
        if is_continued && let Some(field) = fields.last_mut() {
            field.text += "  ";
            field.text += line;
            continue;
        }
        let (key, text) = line.split_once(' ').unwrap_or((line, ""));
        if !KEYS.contains(&key) && !OPTIONAL_KEYS.contains(&key) {
            let known = [KEYS, OPTIONAL_KEYS].concat().join(" ");
            mistakes.add(number, format!("`{key}` is no key of a contract: {known}"));
        } else if text.trim().is_empty() {
            mistakes.add(number, format!("`{key}` has no text"));
        } else if let Some(first) = fields.iter().find(|field| field.key == key && key != "vs") {
            mistakes.add(number, format!("`{key}` is in line {} already", first.line));
        }
        fields.push(Field { line: number, key, text: text.trim().to_owned() });
    }
    for key in KEYS.iter().filter(|key| fields.iter().all(|field| field.key != **key)) {
        mistakes.add(1, format!("its contract has no `// {key}`"));
    }
    fields
}

/// The `[P1]`, `[P2]`, … of `needs`: each ends at its explanation, or where the next begins.
fn read_needs(field: &Field<'_>, mistakes: &mut Mistakes) -> Vec<String> {
    let parts = field.text.split("  ").map(str::trim);
    let needs: Vec<_> = parts.filter(|part| part.starts_with("[P")).collect();
    if needs.is_empty() && !field.text.starts_with("nothing") {
        mistakes.add(field.line, "needs is neither `nothing` nor `[P1] <condition>`".into());
    }
    // A condition after a single space would be part of the text before it.
    let n_labels = field.text.matches("[P").count();
    let is_in_order = |(number, need): (usize, &&str)| {
        need.strip_prefix(&format!("[P{number}] ")).is_some_and(|text| !text.is_empty())
    };
    if n_labels != needs.len() || !(1..).zip(&needs).all(is_in_order) {
        let expected = "`[P1] <condition>   [P2] <condition>`, numbered in order";
        mistakes.add(field.line, format!("needs are not {expected}, two or more spaces apart"));
    }
    needs.iter().map(|need| need.split(": ").next().unwrap_or(need).to_owned()).collect()
}

/// The rung in a file's name: the number of its first part such as `v2`.
fn rung_of(file: &str) -> Option<u32> {
    let stem = file.strip_suffix(".cu")?;
    let mut parts = stem.split('_').skip(1);
    let rung = parts.find_map(|part| part.strip_prefix('v')?.parse().ok());
    // The idea follows.
    rung.filter(|rung| *rung >= 1 && parts.next().is_some())
}

/// Whether a symbol has an op, a pass, a type, and this rung.
fn is_well_named(entry: &str, op: &str, rung: u32) -> bool {
    let name = entry.strip_prefix(op).and_then(|rest| rest.strip_prefix('_'));
    let name = name.and_then(|rest| rest.strip_suffix(&format!("_v{rung}")));
    let parts = name.and_then(|name| name.rsplit_once('_'));
    parts.is_some_and(|(pass, dtype)| !pass.is_empty() && DTYPES.contains(&dtype))
}

/// The `extern "C" __global__` functions of a text: line number and name.
fn entries(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (start, marker) in text.match_indices("extern \"C\"") {
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        if text[line_start..start].contains("//") {
            continue;
        }
        let rest = &text[start + marker.len()..];
        // Up to the parameters: attributes with brackets of their own may come before the name.
        let Some(end) = rest.find(['{', ';']) else { continue };
        let signature = &rest[..end];
        if !signature.contains("__global__") {
            continue;
        }
        if let Some(name) = function_name(signature) {
            found.push((text[..start].matches('\n').count() + 1, name));
        }
    }
    found
}

/// The name before the first bracket that belongs to no attribute.
fn function_name(signature: &str) -> Option<&str> {
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    signature.match_indices('(').find_map(|(at, _)| {
        let before = signature[..at].trim_end();
        let start = before.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
        let name = &before[start..];
        (!name.is_empty() && !name.starts_with("__")).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "norm/fwd_v1_naive.cu";
    const KERNEL: &str = "// norm / forward / v1: plain loops\n// math    a = b\n//         and more\n\
        // in      a (N)\n// out     b (N)\n// launch  grid (1)\n// needs   nothing\n// numeric f32\n\
        // cost    1 flop\n// twin    reference.rs\n// budget  regs 8; threads 32; smem 0; sass -\n\n\
        extern \"C\" __global__ void norm_fwd_f32_v1(int n) {}\n";

    /// The mistakes, as `line: what`.
    fn mistakes(name: &str, text: &str) -> Vec<String> {
        let found = Contract::read(name, text).err().unwrap_or_default();
        found.into_iter().map(|Mistake { line, what }| format!("{line}: {what}")).collect()
    }

    /// The one mistake after `from` was replaced.
    #[track_caller]
    fn mistake(from: &str, to: &str) -> String {
        assert!(KERNEL.contains(from), "{from}");
        let found = mistakes(NAME, &KERNEL.replace(from, to));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn a_whole_file() {
        let contract = Contract::read(NAME, KERNEL).expect("nothing is missing");
        assert_eq!((contract.op.as_str(), contract.rung), ("norm", 1));
        assert_eq!((contract.launch.as_str(), contract.needs.len()), ("grid (1)", 0));
        assert_eq!(contract.entries, ["norm_fwd_f32_v1"]);
    }

    #[test]
    fn needs_without_their_explanations() {
        let needs = "// needs   [P1] D <= 9: fits   [P2] D > 0   (by Buffer: aligned)\n\
                     //         more of it   [P3] even: or\n//         odd\n";
        let text = KERNEL.replace("// needs   nothing\n", needs);
        let contract = Contract::read(NAME, &text).expect("nothing is missing");
        assert_eq!(contract.needs, ["[P1] D <= 9", "[P2] D > 0", "[P3] even"]);
        for wrong in ["[P2] a", "[P1] a  [P3] b", "[P1] a [P2] b", "[P1]", "D <= 9"] {
            assert!(
                mistake("needs   nothing", &format!("needs   {wrong}")).starts_with("7: needs")
            );
        }
    }

    #[test]
    fn keys_that_are_missing_unknown_empty_or_repeated() {
        for key in KEYS.iter().filter(|key| **key != "math") {
            let gap = KERNEL.lines().filter(|line| !line.starts_with(&format!("// {key} ")));
            let gap = gap.fold(String::new(), |text, line| text + line + "\n");
            assert_eq!(mistakes(NAME, &gap), [format!("1: its contract has no `// {key}`")]);
        }
        let unknown = mistakes(NAME, &KERNEL.replace("// cost  ", "// costs "));
        assert_eq!(unknown[0], "1: its contract has no `// cost`");
        assert!(unknown[1].starts_with("9: `costs` is no key of a contract: math in "));
        assert_eq!(mistake("cost    1 flop", "cost"), "9: `cost` has no text");
        let twice = "// in      a (N)\n// in      c\n";
        assert_eq!(mistake("// in      a (N)\n", twice), "5: `in` is in line 4 already");
        // The header ends with the first line that is no comment.
        let found = mistakes(NAME, &KERNEL.replace("// budget", "\n// budget"));
        assert_eq!(found, ["1: its contract has no `// budget`"]);
    }

    #[test]
    fn budgets() {
        let read = |text: &str| Budget::read(text);
        let expected = Budget {
            registers: 128,
            threads: 256,
            shared_bytes: 49152,
            sass: vec!["HMMA".into(), "LDSM".into()],
        };
        assert_eq!(read("regs 128; threads 256; smem 49152; sass HMMA LDSM"), Ok(expected));
        assert_eq!(read("regs 8; threads 32; smem 0; sass -").map(|b| b.sass), Ok(vec![]));
        assert_eq!(
            mistake("regs 8", "regs few"),
            "11: budget: expected `regs <n>`, got `regs few`"
        );
        assert!(mistake("; sass -", "").contains("has 3 parts, expected"));
        assert!(mistake("sass -", "-").contains("expected `sass"));
    }

    #[test]
    fn a_name_of_another_op_or_rung() {
        for wrong in
            ["norm_fwd_f32_v2", "rope_fwd_f32_v1", "norm_fwd_f32", "norm_f32_v1", "norm_fwd_v1"]
        {
            let found = mistake("norm_fwd_f32_v1", wrong);
            let says = format!("13: `{wrong}` is not `norm_<pass>[_<part>]_<dtype>_v1`");
            assert!(found.starts_with(&says), "{found}");
        }
        assert!(mistake("// norm /", "// rope /").starts_with("1: does not begin with `// norm /"));
        assert!(mistake("/ v1:", "/ v11:").contains("/ v1: <idea>`"));
        for name in ["norm/fwd_naive.cu", "norm/fwd_v1.cu", "norm/v1_naive.cu", "norm/fwd_v0_x.cu"]
        {
            assert!(mistakes(name, KERNEL)[0].contains("<pass>_v<rung>_<idea>"), "{name}");
        }
        assert!(mistake("extern", "// extern").contains("has no `extern"));
    }

    #[test]
    fn entries_with_and_without_attributes() {
        let text = "template <class T> __global__ void body(T* x) {}\n\
            // extern \"C\" __global__ void spoken_of(int n) {}\n\
            extern \"C\" __global__ void a_fwd_f32_v1(float *x, int n) { body(x); }\n\
            extern \"C\" __global__ void __launch_bounds__(256, 2)\n    a_fwd_bf16_v1(int n) {}\n\
            extern \"C\" __global__ __launch_bounds__(N / (2)) void b(int n) {}\n\
            extern \"C\" __device__ int helper(int n) { return n; }\n";
        assert_eq!(entries(text), [(3, "a_fwd_f32_v1"), (4, "a_fwd_bf16_v1"), (6, "b")]);
    }
}
