//! Finds the files, and counts the words of one file. No code here knows of processes.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A path that was not counted, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    pub path: PathBuf,
    pub reason: String,
}

/// The files to count, with their sizes.
#[derive(Debug, Default)]
pub struct Files {
    /// In the order found; a file's index is its id.
    pub paths: Vec<PathBuf>,
    pub bytes: u64,
    pub skipped: Vec<Skipped>,
}

impl Files {
    /// Finds the regular files at and below `roots`, in a stable order, without the directories named in
    /// `without`. A root may be a symbolic link; below it, none is followed.
    pub fn find(roots: &[PathBuf], without: &[&str]) -> Self {
        let mut files = Self::default();
        for root in roots {
            match fs::metadata(root) {
                Ok(meta) if meta.is_dir() => files.descend(root, without),
                Ok(meta) if meta.is_file() => files.add(root.clone(), &meta),
                Ok(_) => files.skip(root, "neither a file nor a directory"),
                Err(error) => files.skip(root, error),
            }
        }
        files
    }

    fn descend(&mut self, directory: &Path, without: &[&str]) {
        let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.skip(directory, error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            // Of the entry itself: symbolic links are not followed.
            match entry.metadata() {
                Ok(meta) if meta.is_file() => self.add(entry.path(), &meta),
                Ok(meta) if meta.is_dir() => {
                    if !without.iter().any(|name| entry.file_name() == *name) {
                        self.descend(&entry.path(), without);
                    }
                }
                Ok(_) => {}
                Err(error) => self.skip(&entry.path(), error),
            }
        }
    }

    fn add(&mut self, path: PathBuf, meta: &fs::Metadata) {
        self.paths.push(path);
        self.bytes += meta.len();
    }

    fn skip(&mut self, path: &Path, reason: impl ToString) {
        let (path, reason) = (path.to_owned(), reason.to_string());
        self.skipped.push(Skipped { path, reason });
    }
}

/// The counts of one file, or the reason why it was not counted.
pub type Outcome = Result<Counts, String>;

/// The counts of one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub bytes: u64,
    pub words: HashMap<String, u64>,
}

impl Counts {
    /// Counts the words of the text file at `path`.
    ///
    /// A file is binary, and skipped, if there is a NUL in its first 8 KiB or if it is not UTF-8.
    pub fn of_file(path: &Path) -> Outcome {
        let content = fs::read(path).map_err(|error| error.to_string())?;
        if content.iter().take(8 * 1024).any(|&byte| byte == 0) {
            return Err("binary: it has a NUL byte".into());
        }
        let text = str::from_utf8(&content).map_err(|_| "binary: it is not UTF-8")?;
        Ok(Self::of_text(text))
    }

    /// Counts words: longest runs of letters and digits, in lower case.
    pub fn of_text(text: &str) -> Self {
        let mut words = HashMap::new();
        let mut lower = String::new();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            lower.clear();
            if word.is_ascii() {
                // A faster way to the same result as below.
                lower.push_str(word);
                lower.make_ascii_lowercase();
            } else {
                lower.extend(word.chars().flat_map(char::to_lowercase));
            }
            match words.get_mut(&lower) {
                Some(count) => *count += 1,
                None => {
                    words.insert(lower.clone(), 1);
                }
            }
        }
        Self { bytes: text.len() as u64, words }
    }
}
