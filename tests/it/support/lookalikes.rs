//! Byte sequences that some servers treat as the end of data, which no other server may do. CVE-2023-51764,
//! CVE-2023-51765, CVE-2023-51766.
//! The library's own tests read this file too.

pub const LOOKALIKES: &[&[u8]] = &[
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\n.\r",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
];
