//! Reads what an eBPF object holds: its programs and how many instructions
//! they are.
//!
//! A BPF instruction takes one slot of eight bytes (a 64-bit immediate takes
//! two), and the kernel's own count is in slots too, so size / 8 is the figure
//! that `bpftool` and the verifier report.

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolKind, elf};

const SLOT_BYTES: u64 = 8;

/// One executable section of an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// As in the file: `xdp`, `syscall`, `.text` for functions not inlined.
    pub name: String,
    /// Instruction slots.
    pub instructions: u64,
    /// The functions in it, in address order, each with its slots.
    pub functions: Vec<(String, u64)>,
}

/// The executable, non-empty sections of an ELF object.
///
/// # Errors
/// When the bytes are not an ELF object.
pub fn program_sections(bytes: &[u8]) -> Result<Vec<Section>> {
    let file = object::File::parse(bytes).context("not an ELF object")?;
    let mut sections = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else {
            continue;
        };
        if sh_flags & u64::from(elf::SHF_EXECINSTR) == 0 || section.size() == 0 {
            continue;
        }
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|s| {
                s.section_index() == Some(section.index())
                    && s.kind() == SymbolKind::Text
                    && s.size() > 0
            })
            .map(|s| (s.address(), s.name().unwrap_or("?").to_owned(), s.size() / SLOT_BYTES))
            .collect();
        functions.sort();
        sections.push(Section {
            name: section.name().unwrap_or("?").to_owned(),
            instructions: section.size() / SLOT_BYTES,
            functions: functions.into_iter().map(|(_, name, slots)| (name, slots)).collect(),
        });
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit little-endian BPF object with the sections given: name, flags,
    /// bytes of content. Section 0 is null, the last holds the names.
    fn object_with(sections: &[(&str, u64, usize)]) -> Vec<u8> {
        let mut names = vec![0_u8];
        let mut headers = vec![[0_u8; 64]];
        let mut body = vec![0_u8; 64];
        let header = |name: usize, kind: u32, flags: u64, offset: usize, size: usize| {
            let mut h = [0_u8; 64];
            h[0..4].copy_from_slice(&(name as u32).to_le_bytes());
            h[4..8].copy_from_slice(&kind.to_le_bytes());
            h[8..16].copy_from_slice(&flags.to_le_bytes());
            h[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            h[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            h[48] = 1;
            h
        };
        for (name, flags, bytes) in sections {
            headers.push(header(names.len(), elf::SHT_PROGBITS, *flags, body.len(), *bytes));
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            body.resize(body.len() + bytes, 0);
        }
        let name_of_names = names.len();
        names.extend_from_slice(b".shstrtab\0");
        headers.push(header(name_of_names, elf::SHT_STRTAB, 0, body.len(), names.len()));
        body.extend_from_slice(&names);
        let table = body.len() as u64;
        for h in &headers {
            body.extend_from_slice(h);
        }
        body[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        body[16..18].copy_from_slice(&elf::ET_REL.to_le_bytes());
        body[18..20].copy_from_slice(&elf::EM_BPF.to_le_bytes());
        body[20] = 1;
        body[40..48].copy_from_slice(&table.to_le_bytes());
        body[52] = 64;
        body[58] = 64;
        body[60..62].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        body[62..64].copy_from_slice(&(headers.len() as u16 - 1).to_le_bytes());
        body
    }

    #[test]
    fn counts_executable_sections_only() {
        let code = u64::from(elf::SHF_ALLOC | elf::SHF_EXECINSTR);
        let bytes = object_with(&[
            ("xdp", code, 305 * 8),
            (".text", code, 0),
            ("license", u64::from(elf::SHF_ALLOC), 64),
            ("syscall", code, 16),
        ]);
        let found = program_sections(&bytes).unwrap();
        let counts: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.instructions)).collect();
        assert_eq!(counts, [("xdp", 305), ("syscall", 2)]);
    }

    #[test]
    fn refuses_what_is_no_object() {
        assert!(program_sections(b"").is_err());
        assert!(program_sections(b"not an object at all").is_err());
    }
}
