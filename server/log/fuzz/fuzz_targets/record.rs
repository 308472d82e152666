//! Any bytes are a record or a fault, and a record is what its bytes say.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loopwright_log::Record;

fuzz_target!(|line: &[u8]| {
    // As they are, and with the checksum that their writer would have given them.
    let sealed = {
        let crc = crc(line);
        [line, format!(",\"crc\":\"{crc:08x}\"}}").as_bytes()].concat()
    };
    for line in [line.to_vec(), sealed] {
        let Ok(record) = Record::decode(Bytes::from(line.clone())) else {
            continue;
        };
        assert_eq!(record.line(), line.strip_suffix(b"\n").unwrap_or(&line));
        assert_eq!(record.stored_bytes(), record.line().len() as u64 + 1);
        let body = record.body();
        assert!(body.starts_with(b"{") && body.ends_with(b"}"));
        let again = Record::decode(Bytes::copy_from_slice(record.line()));
        assert_eq!(again.as_ref(), Ok(&record));
    }
});

/// CRC32C, bit by bit: not the code under test.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1))
        })
    })
}
