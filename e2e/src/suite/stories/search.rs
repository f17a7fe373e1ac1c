//! Looks for a secret by its content: as bytes, hexadecimal and base64, wherever a pod could have it.

use std::fs::{self, File};
use std::io::{Read, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

/// Read of a process's memory at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Folders of a pod that hold no files of its own.
const KERNELS: [&str; 3] = ["proc", "sys", "dev"];

/// A secret in every form in which it could be written down.
pub(super) struct Needles {
    forms: Vec<Vec<u8>>,
    /// Which bytes a form begins with: all others are passed over quickly.
    first: [bool; 256],
    longest: usize,
}

impl Needles {
    /// Of these parts of it, each of which must not be found.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut forms = Vec::new();
        for part in parts {
            forms.extend([
                part.to_vec(),
                hex::encode(part).into_bytes(),
                hex::encode_upper(part).into_bytes(),
            ]);
            forms.extend(in_base64(part));
        }
        let mut first = [false; 256];
        for byte in forms.iter().filter_map(|form| form.first()) {
            if let Some(is_first) = first.get_mut(usize::from(*byte)) {
                *is_first = true;
            }
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or_default();
        Self { forms, first, longest }
    }

    /// Whether any form stands in these bytes.
    pub(super) fn are_in(&self, bytes: &[u8]) -> bool {
        let begins = |byte: &u8| self.first.get(usize::from(*byte)) == Some(&true);
        let starts = bytes.iter().enumerate().filter(|(_, byte)| begins(byte));
        starts
            .filter_map(|(at, _)| bytes.get(at..))
            .any(|rest| self.forms.iter().any(|form| rest.starts_with(form)))
    }

    /// Files below a folder that hold it, and how many there were.
    pub(super) fn in_files(&self, folder: &Path) -> Result<(Vec<String>, usize)> {
        let (mut found, mut count) = (Vec::new(), 0);
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let entry = entry?;
                let (kind, path) = (entry.file_type()?, entry.path());
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    count += 1;
                    if self.are_in(&fs::read(&path).with_context(|| path.display().to_string())?) {
                        found.push(path.display().to_string());
                    }
                }
            }
        }
        Ok((found, count))
    }

    /// Files of a pod that hold it, seen through a process in it, and how many there were.
    pub(super) fn in_pod(&self, pid: i32) -> Result<(Vec<String>, usize)> {
        let (mut found, mut count) = (Vec::new(), 0);
        for entry in fs::read_dir(format!("/proc/{pid}/root"))? {
            let entry = entry?;
            let kernels = KERNELS.iter().any(|name| entry.file_name() == *name);
            if entry.file_type()?.is_dir() && !kernels {
                let (here, files) = self.in_files(&entry.path())?;
                found.extend(here);
                count += files;
            }
        }
        Ok((found, count))
    }

    /// Whether it is in what a process can write in its memory, and how many bytes that were.
    pub(super) fn in_memory(&self, pid: i32) -> Result<(bool, u64)> {
        let mut memory = File::open(format!("/proc/{pid}/mem"))?;
        let (mut is_there, mut looked_at) = (false, 0);
        for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            // proc(5): `begin-end rwxp offset device inode path`
            let Some((range, rest)) = line.split_once(' ') else {
                continue;
            };
            let ends = range
                .split_once('-')
                .map(|(begin, end)| (u64::from_str_radix(begin, 16), u64::from_str_radix(end, 16)));
            let (Some((Ok(begin), Ok(end))), true) = (ends, rest.starts_with("rw")) else {
                continue;
            };
            let mut block = Vec::new();
            memory.seek(SeekFrom::Start(begin))?;
            for _ in 0..(end - begin).div_ceil(BLOCK_BYTES as u64) {
                // A form may lie across two blocks.
                let kept = block.len().saturating_sub(self.longest);
                block.drain(..kept);
                let read = Read::by_ref(&mut memory)
                    .take(BLOCK_BYTES as u64)
                    .read_to_end(&mut block);
                // Pages may be given back while they are read.
                let Ok(length) = read else { break };
                looked_at += length as u64;
                is_there |= self.are_in(&block);
            }
        }
        Ok((is_there, looked_at))
    }

    /// Names of objects (as `kubectl get -o json` lists them) that hold it, and how many values they had.
    pub(super) fn in_objects(&self, objects: &[Value]) -> (Vec<String>, usize) {
        let (mut found, mut count) = (Vec::new(), 0);
        for object in objects {
            let mut is_there = self.are_in(object.to_string().as_bytes());
            for (_, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
                count += 1;
                let text = value.as_str().unwrap_or_default();
                is_there |= STANDARD.decode(text).is_ok_and(|bytes| self.are_in(&bytes));
            }
            if is_there {
                let name = object
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                found.push(name.to_owned());
            }
        }
        (found, count)
    }
}

/// How it looks inside longer base64, at each of the three places where it can begin: without the characters at both ends that
/// its neighbours have a part in.
fn in_base64(part: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let whole = [vec![0; before], part.to_vec()].concat();
        for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
            let begin = (before * 8).div_ceil(6);
            let end = whole.len() * 8 / 6;
            forms.extend(text.get(begin..end).map(|inner| inner.as_bytes().to_vec()));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = *b"\x01\xff a secret of 32 bytes, so it\xfe.";

    #[test]
    fn a_secret_is_found_in_every_form_and_place() {
        let needles = Needles::of(&[&SECRET]);
        for before in 0..5 {
            let mut file = vec![b'x'; before];
            file.extend(SECRET);
            file.extend(b"after");
            assert!(needles.are_in(&file));
            assert!(needles.are_in(hex::encode(&file).as_bytes()));
            assert!(needles.are_in(hex::encode_upper(&file).as_bytes()));
            assert!(needles.are_in(STANDARD.encode(&file).as_bytes()), "{before}");
            assert!(needles.are_in(URL_SAFE.encode(&file).as_bytes()));
        }
        let mut other = SECRET;
        other[31] ^= 1;
        assert!(!needles.are_in(&other) && !needles.are_in(hex::encode(other).as_bytes()) && !needles.are_in(b""));
    }

    #[test]
    fn a_secret_is_found_in_files_and_objects() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/key"), hex::encode(SECRET)).unwrap();
        fs::write(folder.path().join("other"), "nothing").unwrap();
        let needles = Needles::of(&[&SECRET]);
        let (found, count) = needles.in_files(folder.path()).unwrap();
        assert!(found.len() == 1 && found[0].ends_with("deep/key") && count == 2);

        let secret = serde_json::json!({"metadata": {"name": "s"}, "data": {"k": STANDARD.encode([b"..", &SECRET[..]].concat())}});
        assert_eq!(needles.in_objects(&[secret]), (vec!["s".to_owned()], 1));
    }
}
