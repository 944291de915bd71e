//! The exposition text as a test reads it.

/// One answer of `/metrics`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum of every sample of `name` that has all these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.0.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| sample(line, name, labels)).sum()
    }

    /// Whether there is a sample of `name` at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.lines().any(|line| sample(line, name, &[]).is_some())
    }

    /// Every name that is declared with a TYPE.
    pub(crate) fn declared(&self) -> Vec<String> {
        let types = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }
}

fn sample(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let (series, value) = line.rsplit_once(' ')?;
    let (found, rest) = series.split_once('{').unwrap_or((series, ""));
    let has = |(key, value): &(&str, &str)| rest.contains(&format!("{key}=\"{value}\""));
    if found == name && labels.iter().all(has) { value.parse().ok() } else { None }
}
