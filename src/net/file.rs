//! Regular files: opened without waiting, measured, and read from any place in them.

use rustix::buffer::spare_capacity;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::{Errno, pread, retry_on_intr};
use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a regular file, and says how long it is. What is none is [`io::ErrorKind::InvalidInput`].
pub(crate) fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let not_a_file = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    // What it is shows once it is open: a pipe must not keep us waiting for that, nor a terminal become the process's own.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match retry_on_intr(|| fs::open(path, flags, Mode::empty())) {
        Ok(file) => file,
        // A socket, or a device that is not there.
        Err(Errno::NXIO) => return Err(not_a_file()),
        Err(errno) => return Err(errno.into()),
    };
    let facts = fs::fstat(&file)?;
    match u64::try_from(facts.st_size) {
        Ok(length) if FileType::from_raw_mode(facts.st_mode).is_file() => Ok((file.into(), length)),
        _ => Err(not_a_file()),
    }
}

/// Reads once from `at` on into `piece`, of which nothing is kept but its memory: `most` bytes at the most. Empty afterwards,
/// the file ends there.
pub(crate) fn read_file(file: &File, at: u64, most: usize, piece: &mut Vec<u8>) -> io::Result<()> {
    piece.clear();
    piece.reserve(most);
    retry_on_intr(|| pread(file, spare_capacity(piece), at))?;
    // There may be room for more than that.
    piece.truncate(most);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_pipe_a_socket_and_a_directory_are_no_files_and_keep_nobody_waiting() {
        let place = |name: &str| std::env::temp_dir().join(format!("lodger-{name}-{}", std::process::id()));
        let (pipe, socket) = (place("pipe"), place("socket"));
        let mode = Mode::RUSR | Mode::WUSR;
        fs::mknodat(fs::CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        for path in [&pipe, &socket, &std::env::temp_dir()] {
            let error = open_file(path).expect_err("not a file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
        drop(listener);
        std::fs::remove_file(pipe).unwrap();
        std::fs::remove_file(socket).unwrap();
    }

    #[test]
    fn no_more_is_read_than_asked_for() {
        let path = std::env::temp_dir().join(format!("lodger-read-{}", std::process::id()));
        std::fs::write(&path, "0123456789").unwrap();
        let (file, length) = open_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(length, 10);
        let mut piece = Vec::with_capacity(64);
        for (at, most, expected) in [(0, 4, &b"0123"[..]), (4, 100, b"456789"), (10, 4, b"")] {
            read_file(&file, at, most, &mut piece).unwrap();
            assert_eq!(piece, expected);
        }
    }
}
