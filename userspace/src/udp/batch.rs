//! `recvmmsg` and `sendmmsg` over a fixed pool of slots: all the unsafe code
//! of the socket provider.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of ancillary data kept for a slot: one `IP_PKTINFO` and one
/// `IPV6_PKTINFO` message (32 + 40 bytes) fit.
pub const CONTROL_BYTES: usize = 96;

/// Buffers, addresses and ancillary data of `slots` datagrams, and the message
/// headers to pass them to the kernel. Nothing is allocated after `new`.
pub struct Batch {
    stride: usize,
    data: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    names_bytes: Vec<libc::socklen_t>,
    controls: Vec<Control>,
    controls_bytes: Vec<usize>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// Where a datagram came from and how: what a reply needs.
#[derive(Clone, Copy)]
pub struct Return {
    name: libc::sockaddr_storage,
    name_bytes: libc::socklen_t,
    control: Control,
    control_bytes: usize,
}

/// Ancillary data, aligned as the kernel's `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// What a slot received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the slot.
    pub bytes: usize,
    /// Whether the datagram was longer than the slot.
    pub truncated: bool,
    /// Whether ancillary data was longer than [`CONTROL_BYTES`].
    pub control_truncated: bool,
}

// SAFETY: the pointers in `iovecs` and `headers` are written anew before each
// call and point into vectors that this value owns.
unsafe impl Send for Batch {}

impl Batch {
    /// A pool of `slots` buffers of `stride` bytes, moved at most `calls_max`
    /// at a time.
    #[must_use]
    pub fn new(slots: usize, stride: usize, calls_max: usize) -> Self {
        // SAFETY: all zeroes is a valid value of these C structs.
        let name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        // SAFETY: as above; null pointers with zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            stride,
            data: vec![0; slots * stride],
            names: vec![name; slots],
            names_bytes: vec![0; slots],
            controls: vec![Control([0; CONTROL_BYTES]); slots],
            controls_bytes: vec![0; slots],
            iovecs: vec![iovec; calls_max],
            headers: vec![header; calls_max],
        }
    }

    /// Bytes of all buffers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The buffer of a slot.
    #[must_use]
    #[inline]
    pub fn slot(&self, slot: usize) -> &[u8] {
        &self.data[slot * self.stride..(slot + 1) * self.stride]
    }

    /// The buffer of a slot, to write.
    #[inline]
    pub fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.data[slot * self.stride..(slot + 1) * self.stride]
    }

    /// Address bytes of a slot's peer, as the kernel gave them.
    #[must_use]
    #[inline]
    pub fn peer(&self, slot: usize) -> &[u8] {
        let bytes = (self.names_bytes[slot] as usize).min(size_of::<libc::sockaddr_storage>());
        // SAFETY: `bytes` of a sockaddr_storage, all initialised, borrowed
        // from self.
        unsafe { std::slice::from_raw_parts((&raw const self.names[slot]).cast(), bytes) }
    }

    /// Ancillary data of a slot: the local address its datagram was sent to
    /// and the interface it came by.
    #[must_use]
    #[inline]
    pub fn way(&self, slot: usize) -> &[u8] {
        &self.controls[slot].0[..self.controls_bytes[slot].min(CONTROL_BYTES)]
    }

    /// What a reply to the slot's datagram needs.
    #[must_use]
    pub fn way_back(&self, slot: usize) -> Return {
        Return {
            name: self.names[slot],
            name_bytes: self.names_bytes[slot],
            control: self.controls[slot],
            control_bytes: self.controls_bytes[slot],
        }
    }

    /// Makes the slot one that is sent along `way`.
    pub fn set_way(&mut self, slot: usize, way: &Return) {
        self.names[slot] = way.name;
        self.names_bytes[slot] = way.name_bytes;
        self.controls[slot] = way.control;
        self.controls_bytes[slot] = way.control_bytes;
    }

    /// Whether the slot's datagram came along `way`.
    #[must_use]
    pub fn is_on_way(&self, slot: usize, way: &Return) -> bool {
        let bytes = (way.name_bytes as usize).min(size_of::<libc::sockaddr_storage>());
        // SAFETY: `bytes` of a sockaddr_storage, all initialised, borrowed
        // from `way`.
        let name: &[u8] =
            unsafe { std::slice::from_raw_parts((&raw const way.name).cast(), bytes) };
        self.peer(slot) == name
            && self.way(slot) == &way.control.0[..way.control_bytes.min(CONTROL_BYTES)]
    }

    /// Receives into `slots` without blocking; `each(slot, received)` for
    /// every datagram, in order.
    ///
    /// # Errors
    ///
    /// The kernel's; `WouldBlock` when nothing waits.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        slots: &[u32],
        mut each: impl FnMut(u32, Received),
    ) -> io::Result<usize> {
        let n = slots.len().min(self.headers.len());
        for (i, &slot) in slots[..n].iter().enumerate() {
            let stride = self.stride;
            let slot = slot as usize;
            self.point(i, slot, stride);
            let header = &mut self.headers[i].msg_hdr;
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_controllen = CONTROL_BYTES;
        }
        // SAFETY: the first `n` headers point at live buffers of the lengths
        // they give, owned by self and borrowed exclusively.
        let got = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                n as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (header, &slot) in self.headers[..got].iter().zip(slots) {
            self.names_bytes[slot as usize] = header.msg_hdr.msg_namelen;
            self.controls_bytes[slot as usize] = header.msg_hdr.msg_controllen;
            each(
                slot,
                Received {
                    bytes: header.msg_len as usize,
                    truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                    control_truncated: header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0,
                },
            );
        }
        Ok(got)
    }

    /// Sends `(slot, bytes)` of each entry to the slot's peer, from the
    /// address it sent to. Gives how many the kernel took.
    ///
    /// # Errors
    ///
    /// The kernel's answer to the first entry, when it took none.
    pub fn send(&mut self, fd: BorrowedFd<'_>, entries: &[(u32, u32)]) -> io::Result<usize> {
        let n = entries.len().min(self.headers.len());
        for (i, &(slot, bytes)) in entries[..n].iter().enumerate() {
            let slot = slot as usize;
            self.point(i, slot, (bytes as usize).min(self.stride));
            let header = &mut self.headers[i].msg_hdr;
            header.msg_namelen = self.names_bytes[slot];
            header.msg_controllen = self.controls_bytes[slot];
        }
        // SAFETY: as in `receive`.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                n as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Points message header `i` at a slot's buffers.
    fn point(&mut self, i: usize, slot: usize, bytes: usize) {
        let start = slot * self.stride;
        self.iovecs[i] =
            libc::iovec { iov_base: self.data[start..].as_mut_ptr().cast(), iov_len: bytes };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_iov = &raw mut self.iovecs[i];
        header.msg_iovlen = 1;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_control = (&raw mut self.controls[slot]).cast();
        header.msg_flags = 0;
    }
}
