//! What is to be done about an XID: the "immediate action" of NVIDIA's XID catalogue
//! (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), as of October 2025.

/// The cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// The process that uses the GPU has to be started anew (`RESTART_APP`; 48, a double bit error, is left to a
    /// workflow that begins with it). The GPU is fine.
    RestartProcess,
    /// The GPU has to be reset (`RESET_GPU`).
    ResetGpu,
    /// The host, or the virtual machine, has to be restarted (`RESTART_BM`, `RESTART_VM`).
    RestartHost,
    /// Nothing at once, or nothing that could be known from the number.
    None,
}

/// What cures this XID.
pub(super) fn cure(xid: u64) -> Cure {
    match xid {
        8 | 11 | 13 | 25 | 31 | 32 | 39..=41 | 48 | 60 | 68..=72 | 75..=77 | 80 | 82..=86 | 88 | 89 | 94 | 96..=105 => {
            Cure::RestartProcess
        }
        126..=135 | 139 => Cure::RestartProcess,
        46 | 62 | 64 | 95 | 109 | 110 | 119 | 120 | 136 | 140 | 143 | 155 | 156 | 158 => Cure::ResetGpu,
        79 | 151 => Cure::RestartHost,
        _ => Cure::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_as_many_codes_of_each_cure() {
        let with = |wanted| (0..=172).filter(|xid| cure(*xid) == wanted).count();
        assert_eq!(with(Cure::RestartProcess), 49, "48 of RESTART_APP, and the double bit error");
        assert_eq!((with(Cure::ResetGpu), with(Cure::RestartHost)), (14, 2));
        for ignored in [14, 43, 45, 63, 92, 154] {
            assert_eq!(cure(ignored), Cure::None, "{ignored}");
        }
    }
}
