//! Takes a variable out of the process's environment, so that `/proc/<pid>/environ` does not show its value either.

use std::ffi::{CStr, CString, c_char};

use zeroize::Zeroizing;

/// Why the variable could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("{0} can only be taken out of the environment before other threads run")]
    Threads(String),
    #[error("{0} is not UTF-8")]
    Encoding(String),
}

/// The value of the variable `name`, which the process has no more afterwards: its bytes are zero in the memory that the
/// kernel shows as `/proc/<pid>/environ`, and children do not inherit it. Nothing if it is not set.
///
/// # Errors
/// Other threads run already, which may be reading the environment (nothing is changed then); or the value is no text
/// (it is gone all the same).
pub fn take(name: &str) -> Result<Option<Zeroizing<String>>, TakeError> {
    let Ok(c_name) = CString::new(name) else { return Ok(None) };
    if value_of(&c_name).is_none() {
        return Ok(None);
    }
    if threads() != 1 {
        return Err(TakeError::Threads(name.to_owned()));
    }
    let value = take_alone(name, &c_name);
    let text = value.map(|value| match std::str::from_utf8(&value) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(TakeError::Encoding(name.to_owned())),
    });
    text.transpose()
}

/// Takes it while no other thread reads the environment.
fn take_alone(name: &str, c_name: &CStr) -> Option<Zeroizing<Vec<u8>>> {
    let place = value_of(c_name)?;
    #[expect(unsafe_code, reason = "the environment is the C library's memory")]
    // SAFETY: getenv's answer is a string that ends with a zero, and stays in its place while no other thread runs.
    let value = unsafe {
        let copied = Zeroizing::new(CStr::from_ptr(place).to_bytes().to_vec());
        libc::explicit_bzero(place.cast(), copied.len());
        std::env::remove_var(name);
        copied
    };
    Some(value)
}

fn value_of(name: &CStr) -> Option<*mut c_char> {
    #[expect(unsafe_code, reason = "std hands out copies only")]
    // SAFETY: `name` ends with a zero; the answer is only looked at where no other thread runs.
    let place = unsafe { libc::getenv(name.as_ptr()) };
    (!place.is_null()).then_some(place)
}

/// How many threads this process has; none if that cannot be told.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "CLOISTER_TEST_TAKEN";

    /// The part that needs a process whose environment nobody else reads; it is started by the test below. The harness has
    /// a second thread even for one test, which waits.
    #[test]
    #[ignore = "started in a process of its own"]
    fn in_a_process_of_its_own() {
        let environ = || String::from_utf8(std::fs::read("/proc/self/environ").unwrap()).unwrap();
        assert!(environ().contains("secret-value"));
        let c_name = CString::new(NAME).unwrap();
        assert_eq!(take_alone(NAME, &c_name).unwrap().as_slice(), b"secret-value");
        assert!(!environ().contains("secret-value"), "{}", environ().replace('\0', "\n"));
        assert!(environ().contains("OTHER=stays\0") && take(NAME).unwrap().is_none());
        println!("taken and gone");
    }

    #[test]
    fn a_value_that_was_taken_is_not_shown_by_the_kernel() {
        #[expect(clippy::disallowed_methods, reason = "the test's own second process")]
        let ran = std::process::Command::new("/proc/self/exe")
            .args(["sys::environ::tests::in_a_process_of_its_own", "--exact", "--ignored", "--nocapture"])
            .arg("--test-threads=1")
            .env(NAME, "secret-value")
            .env("OTHER", "stays")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(
            ran.status.success() && said.contains("taken and gone"),
            "{said}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    #[test]
    fn beside_other_threads_nothing_is_changed() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(matches!(take("PATH"), Err(TakeError::Threads(_))));
        assert!(value_of(c"PATH").is_some());
        assert!(take("CLOISTER_TEST_UNSET").unwrap().is_none());
        drop(done);
        let _ = other.join();
    }
}
