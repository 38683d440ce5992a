//! A page for scrapers that do not ask for OpenMetrics: the text format 0.0.4 of Prometheus.

/// `page` is in the text format of OpenMetrics, as our own families are written: there the name of a counter or an info
/// lacks the suffix that its values have.
pub fn plain(page: &str) -> String {
    let mut plain = String::with_capacity(page.len() + page.len() / 16);
    let mut help = None;
    for line in page.lines() {
        if line.starts_with("# HELP ") {
            // Which suffix it needs is told by the type, which comes next.
            help = Some(line);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.rsplit_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some((_, text)) = help.take().and_then(|line| line["# HELP ".len()..].split_once(' ')) {
                plain.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            plain.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            plain.extend([line, "\n"]);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_move_to_the_names_and_what_only_openmetrics_has_goes() {
        let page = "# HELP a_x How many.\n# TYPE a_x counter\na_x_total{k=\"# TYPE\"} 1\n\
                    # HELP a_build Which.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
                    # HELP a_y Now.\n# TYPE a_y gauge\na_y 2.0\n# EOF\n";
        let expected = "# HELP a_x_total How many.\n# TYPE a_x_total counter\na_x_total{k=\"# TYPE\"} 1\n\
                        # HELP a_build_info Which.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
                        # HELP a_y Now.\n# TYPE a_y gauge\na_y 2.0\n";
        assert_eq!(plain(page), expected);
    }
}
