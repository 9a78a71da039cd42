pub(super) fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
