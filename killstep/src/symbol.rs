//! Where in the program an address is, as well as that is known without debug information.

use std::fs;
use std::ops::Range;

/// This process's mapped files and the functions of its main image. Children are forked from it, so theirs
/// are the same.
pub(crate) struct Symbols {
    maps: Vec<Map>,
    program: String,
    functions: Vec<Function>,
}

struct Map {
    range: Range<usize>,
    file: String,
}

struct Function {
    range: Range<usize>,
    name: String,
}

impl Symbols {
    pub(crate) fn load() -> Self {
        let program =
            fs::read_link("/proc/self/exe").map(|path| path.display().to_string()).unwrap_or_default();
        let image = fs::read("/proc/self/exe").unwrap_or_default();
        Self { maps: maps(), program, functions: functions(&image).unwrap_or_default() }
    }

    /// `function+0x1f (program+0x12345)`: the second half is what `addr2line` takes.
    pub(crate) fn describe(&self, address: usize) -> String {
        let Some(map) = self.maps.iter().find(|map| map.range.contains(&address)) else {
            return format!("{address:#x}");
        };
        let base = self
            .maps
            .iter()
            .find(|first| first.file == map.file)
            .map_or(map.range.start, |first| first.range.start);
        let file = map.file.rsplit('/').next().unwrap_or_default();
        // A program that is not position-independent has absolute symbols.
        let inside = [address - base, address];
        let function = |at: &usize| {
            self.functions.iter().find(|function| function.range.contains(at)).map(|function| (function, *at))
        };
        match inside.iter().find_map(function).filter(|_| map.file == self.program) {
            Some((function, at)) => {
                format!("{}+{:#x} ({file}+{at:#x})", function.name, at - function.range.start)
            }
            None => format!("{file}+{:#x}", address - base),
        }
    }
}

/// Where the kernel has put its own code for clocks into this process.
pub(crate) fn vdso() -> Range<usize> {
    maps().into_iter().find(|map| map.file == "[vdso]").map_or(0..0, |map| map.range)
}

fn maps() -> Vec<Map> {
    let text = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        Some(Map { range, file: fields.nth(4).unwrap_or_default().to_owned() })
    };
    text.lines().filter_map(parse).collect()
}

/// The functions in the symbol table of a 64-bit little-endian ELF image.
fn functions(image: &[u8]) -> Option<Vec<Function>> {
    let number = |at: usize, width: usize| {
        let bytes = image.get(at..at.checked_add(width)?)?;
        usize::try_from(bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))).ok()
    };
    let (sections, size, count) = (number(40, 8)?, number(58, 2)?, number(60, 2)?);
    let header = |index: usize| sections + index * size;
    const SYMBOLS: usize = 2;
    let table = header((0..count).find(|&index| number(header(index) + 4, 4) == Some(SYMBOLS))?);
    let names = number(header(number(table + 40, 4)?) + 24, 8)?;
    let (start, length) = (number(table + 24, 8)?, number(table + 32, 8)?);
    let function = |at: usize| {
        let (name, kind, value, size) =
            (number(at, 4)?, number(at + 4, 1)? & 0xf, number(at + 8, 8)?, number(at + 16, 8)?);
        let text = image.get(names + name..)?.split(|&byte| byte == 0).next()?;
        const FUNCTION: usize = 2;
        (kind == FUNCTION && size > 0)
            .then(|| Function { range: value..value + size, name: demangle(&String::from_utf8_lossy(text)) })
    };
    Some((start..start + length).step_by(24).filter_map(function).collect())
}

/// The path in a symbol of Rust's older mangling; any other symbol as it is.
fn demangle(symbol: &str) -> String {
    let mut rest = symbol.strip_prefix("_ZN").unwrap_or_default();
    let mut parts = Vec::new();
    while let Some(end) = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|&end| end > 0) {
        let Some((part, tail)) =
            rest[..end].parse().ok().and_then(|length| rest[end..].split_at_checked(length))
        else {
            break;
        };
        parts.push(part.trim_start_matches('_'));
        rest = tail;
    }
    // The last part is a hash.
    if parts.pop().is_none_or(|hash| !hash.starts_with('h')) || parts.is_empty() {
        return symbol.to_owned();
    }
    let escapes = [
        ("$u7b$", "{"),
        ("$u7d$", "}"),
        ("$LT$", "<"),
        ("$GT$", ">"),
        ("$u20$", " "),
        ("$RF$", "&"),
        ("$C$", ","),
        ("..", "::"),
    ];
    escapes.iter().fold(parts.join("::"), |path, (escape, plain)| path.replace(escape, plain))
}
