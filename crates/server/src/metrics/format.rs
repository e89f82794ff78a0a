//! From OpenMetrics to Prometheus' older text format, which most tools read: there a counter's
//! help and type name it with its `_total`, and there is no end mark.

/// The same metrics in the older format.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut classic = String::with_capacity(open_metrics.len());
    // The help of a metric comes before its type, which decides on the name of both.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, ty) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if ty == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take() {
                classic.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            classic.push_str(&format!("# TYPE {name}{suffix} {ty}\n"));
        } else if !line.starts_with('#') {
            classic.push_str(line);
            classic.push('\n');
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_are_named_as_they_are_sampled() {
        let open = "# HELP a_b Words.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n\
            # HELP c Others.\n# TYPE c gauge\nc 1.5\n# EOF\n";
        let classic = "# HELP a_b_total Words.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n\
            # HELP c Others.\n# TYPE c gauge\nc 1.5\n";
        assert_eq!(super::classic(open), classic);
    }
}
