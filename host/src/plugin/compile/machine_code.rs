//! Machine code on its way from the compiler to the engine, and to and from the cache. It lies in a file of its own
//! that is in no folder. The engine maps the file's memory, so the code is never copied.

use std::fs::File;
use std::io::{self, Read, Seek as _};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Machine code that nobody can change any more.
#[derive(Debug)]
pub(crate) struct MachineCode(File);

impl MachineCode {
    /// Creates an empty file to write machine code to.
    pub(crate) fn create() -> io::Result<File> {
        system::create()
    }

    /// Seals a file of machine code.
    ///
    /// # Errors
    /// If the file cannot be sealed, and somebody may still change it.
    pub(crate) fn seal(file: File) -> io::Result<Self> {
        system::seal(&file)?;
        Ok(Self(file))
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Returns a reader that begins at the first byte. Only one reader may be used at a time.
    pub(crate) fn read(&self) -> io::Result<impl Read> {
        (&self.0).rewind()?;
        Ok(&self.0)
    }

    /// Makes the code ready to run. Blocks.
    ///
    /// # Safety
    /// The code must come from the engine's compiler: it is executed.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn map(&self, engine: &Engine) -> wasmtime::Result<Component> {
        if let Some(path) = system::path(&self.0) {
            // SAFETY: the caller knows that the compiler made the code. The file is sealed, so it does not change while
            // it is mapped.
            return unsafe { Component::deserialize_file(engine, path) };
        }
        let mut bytes = Vec::new();
        self.read()?.read_to_end(&mut bytes)?;
        // SAFETY: the caller knows that the compiler made the code.
        unsafe { Component::deserialize(engine, bytes) }
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut file = Self::create().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        Self::seal(file).unwrap()
    }
}

/// A file in memory, which can be sealed.
#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use rustix::io::Errno;

    pub(crate) fn create() -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Some systems allow no such file that could be started as a program. Linux before 6.3 does not know the flag.
        let file = match memfd_create("hotgate-code", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create("hotgate-code", flags)?,
            created => created?,
        };
        Ok(file.into())
    }

    pub(crate) fn seal(file: &File) -> io::Result<()> {
        Ok(fcntl_add_seals(file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?)
    }

    /// Returns the path where the file can be opened again, if there is a `/proc`.
    pub(crate) fn path(file: &File) -> Option<PathBuf> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        path.exists().then_some(path)
    }
}

/// A file whose name has been removed.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::PathBuf;
    use std::{env, io};

    pub(crate) fn create() -> io::Result<File> {
        let number = getrandom::u64().map_err(io::Error::other)?;
        let path = env::temp_dir().join(format!("hotgate-code-{number:016x}"));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(path)?;
        Ok(file)
    }

    /// Does nothing: the file cannot be sealed, and is not mapped.
    pub(crate) fn seal(_: &File) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn path(_: &File) -> Option<PathBuf> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_sealed_cannot_be_changed_by_whoever_has_it_open() {
        let file = MachineCode::create().unwrap();
        let mut other = file.try_clone().unwrap();
        other.write_all(b"code").unwrap();
        let code = MachineCode::seal(file).unwrap();
        assert!(other.write_all(b"more").is_err() && other.set_len(0).is_err() && other.set_len(100).is_err());
        let mut text = String::new();
        code.read().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "code");
    }
}
