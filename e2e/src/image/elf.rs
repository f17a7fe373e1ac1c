//! One question to a program file: does it need a dynamic loader?

/// `PT_INTERP`, the program header that names the loader (ELF-64 object file format, "Program Header").
const PT_INTERP: u32 = 3;

/// Whether a 64-bit little-endian ELF program runs without a loader and shared libraries.
///
/// # Errors
/// When the bytes are no such program.
pub(crate) fn is_static(program: &[u8]) -> anyhow::Result<bool> {
    let read = || -> Option<bool> {
        // Magic, 64 bit, little endian.
        if program.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let table = usize::try_from(u64::from_le_bytes(program.get(32..40)?.try_into().ok()?)).ok()?;
        let size = usize::from(u16::from_le_bytes(program.get(54..56)?.try_into().ok()?));
        let count = usize::from(u16::from_le_bytes(program.get(56..58)?.try_into().ok()?));
        for index in 0..count {
            let at = table.checked_add(size.checked_mul(index)?)?;
            let kind = u32::from_le_bytes(program.get(at..at.checked_add(4)?)?.try_into().ok()?);
            if kind == PT_INTERP {
                return Some(false);
            }
        }
        Some(true)
    };
    read().ok_or_else(|| anyhow::anyhow!("not a 64-bit ELF program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one program header of this type behind it.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64; // program headers start here
        bytes[54] = 56; // each is this long
        bytes[56] = 1; // one of them
        bytes.extend(kind.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(!is_static(&program(PT_INTERP)).unwrap());
        assert!(is_static(&program(1)).unwrap());
    }

    #[test]
    fn a_cut_or_foreign_file_is_an_error_and_no_panic() {
        let whole = program(PT_INTERP);
        for length in 0..whole.len() {
            assert!(is_static(&whole[..length]).is_err(), "cut at {length}");
        }
        assert!(is_static(b"#!/bin/sh\n").is_err());
    }
}
