//! What the head of an ELF file says: the machine that it is for, and whether it is loaded by a dynamic linker.
//!
//! Source: System V ABI, chapter 4 "Object files" and chapter 5 "Program header".

use std::fmt;

/// A dynamic linker is asked for by a program header of this type.
const PT_INTERP: u32 = 3;

/// The machine that a file is for: class (32 or 64 bits), byte order, and the number of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    class: u8,
    order: u8,
    processor: u16,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.processor {
            3 => f.write_str("x86 (32 bits)"),
            40 => f.write_str("Arm (32 bits)"),
            62 if self.class == 1 => f.write_str("x32"),
            62 => f.write_str("x86-64"),
            183 => f.write_str("Arm (64 bits)"),
            243 => f.write_str("RISC-V"),
            number => write!(f, "processor {number}"),
        }
    }
}

/// What is read of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elf {
    pub(super) machine: Machine,
    /// The path of the dynamic linker; a static program has none, and a library neither.
    pub(super) interpreter: Option<String>,
}

impl Elf {
    /// Reads `file`, of which all is there. `None`: it is no ELF file.
    pub(super) fn read(file: &[u8]) -> Option<Self> {
        let ident = file.strip_prefix(b"\x7fELF")?;
        let [class @ (1 | 2), order @ (1 | 2), ..] = *ident else { return None };
        let read = Reader { file, wide: class == 2, little: order == 1 };
        let machine = Machine { class, order, processor: u16::try_from(read.number(18, 2)?).ok()? };
        // e_phoff, e_phentsize and e_phnum; then p_offset and p_filesz of each header, whose first field is p_type.
        let (table, sizes, place, length, word) =
            if read.wide { (32, 54, 8, 32, 8) } else { (28, 42, 4, 16, 4) };
        let table = read.number(table, word)?;
        let (size, count) = (read.number(sizes, 2)?, read.number(sizes + 2, 2)?);
        let mut interpreter = None;
        for header in (0..count).map_while(|number| table.checked_add(number.checked_mul(size)?)) {
            if read.number(header, 4) == Some(u64::from(PT_INTERP)) {
                let start = usize::try_from(read.number(header + place, word)?).ok()?;
                let length = usize::try_from(read.number(header + length, word)?).ok()?;
                let path = file.get(start..start.checked_add(length)?)?;
                let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
                interpreter = Some(String::from_utf8_lossy(path).into_owned());
            }
        }
        Some(Self { machine, interpreter })
    }
}

struct Reader<'a> {
    file: &'a [u8],
    wide: bool,
    little: bool,
}

impl Reader<'_> {
    fn number(&self, at: u64, bytes: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let field = self.file.get(at..at.checked_add(bytes)?)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_test_is_a_dynamic_program_of_this_machine() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::read(&this).unwrap();
        #[cfg(target_env = "gnu")]
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(elf.machine.to_string(), "x86-64");
        assert_eq!(Elf::read(b"#!/bin/sh\n"), None);
        assert_eq!(Elf::read(&this[..40]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), class in 0..4_u8, order in 0..4_u8) {
            let _ = Elf::read(&bytes);
            let ident = [0x7f, b'E', b'L', b'F', class, order];
            let length = bytes.len().min(ident.len());
            bytes[..length].copy_from_slice(&ident[..length]);
            let _ = Elf::read(&bytes);
        }
    }
}
