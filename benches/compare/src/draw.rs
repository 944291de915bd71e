//! The picture of a suite: a panel a figure, a bar a peer, a line from the least to the greatest round.

use std::fmt::Write as _;

use crate::figures::{Figure, Results, SHOWN};
use crate::table::number;

const COLUMNS: usize = 3;
const PANEL_WIDTH: f64 = 330.0;
const NAME_WIDTH: f64 = 84.0;
const VALUE_WIDTH: f64 = 66.0;
const BAR: f64 = 13.0;
const STEP: f64 = 18.0;
const HEAD: f64 = 52.0;
const TITLE: f64 = 56.0;

/// A picture of its own: no fonts, scripts or images from elsewhere.
pub fn svg(results: &Results) -> String {
    let peers = results.peers();
    let panels: Vec<&Figure> = SHOWN
        .iter()
        .filter(|it| peers.iter().any(|peer| results.spread(peer, it).is_some()))
        .collect();
    let rows: Vec<&[&Figure]> = panels.chunks(COLUMNS).collect();
    let heights: Vec<f64> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|it| HEAD + STEP * measured(results, it) as f64)
                .fold(0.0, f64::max)
        })
        .collect();
    let width = PANEL_WIDTH * COLUMNS as f64 + 20.0;
    let height = TITLE + heights.iter().sum::<f64>() + 10.0;
    let mut text = String::new();
    let machine = &results.machine;
    let _ = write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>tidegate beside other forward proxies, {}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"600\" fill=\"#1a1a1a\">tidegate beside other forward proxies</text>\n\
         <text x=\"12\" y=\"40\" fill=\"#555555\">{}, {} processors ({}), {}; medians of {} rounds of {} s, lines from least to greatest; \
         relay: a yardstick without policy, log or deadlines</text>\n",
        machine.date,
        machine.date,
        machine.processors,
        escaped(&machine.processor),
        escaped(&machine.kernel),
        machine.rounds,
        machine.seconds
    );
    let mut y = TITLE;
    for (row, height) in rows.iter().zip(heights) {
        for (column, figure) in row.iter().enumerate() {
            panel(
                &mut text,
                results,
                figure,
                10.0 + PANEL_WIDTH * column as f64,
                y,
            );
        }
        y += height;
    }
    text.push_str("</svg>\n");
    text
}

fn measured(results: &Results, figure: &Figure) -> usize {
    results
        .peers()
        .iter()
        .filter(|peer| results.spread(peer, figure).is_some())
        .count()
}

fn panel(text: &mut String, results: &Results, figure: &Figure, x: f64, y: f64) {
    let better = if figure.more_is_better {
        "more is better"
    } else {
        "less is better"
    };
    let _ = writeln!(
        text,
        "<text x=\"{x}\" y=\"{}\" font-size=\"12\" font-weight=\"600\" fill=\"#1a1a1a\">{}</text>\n\
         <text x=\"{x}\" y=\"{}\" font-size=\"10\" fill=\"#666666\">{}, {better}</text>",
        y + 18.0,
        figure.title,
        y + 32.0,
        figure.unit
    );
    let mut rows: Vec<_> = results
        .peers()
        .into_iter()
        .filter_map(|it| Some((it, results.spread(it, figure)?)))
        .collect();
    rows.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    if figure.more_is_better {
        rows.reverse();
    }
    // One peer that is far worse would make all other bars too short to compare.
    let mut medians: Vec<f64> = rows.iter().map(|(_, it)| it.median).collect();
    medians.sort_by(f64::total_cmp);
    let middle = medians.get(medians.len() / 2).copied().unwrap_or(1.0);
    let greatest = medians.last().copied().unwrap_or(1.0);
    let scale = if figure.more_is_better {
        greatest
    } else {
        greatest.min(middle * 4.0)
    }
    .max(1e-9);
    let room = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH - 14.0;
    for (at, (peer, spread)) in rows.iter().enumerate() {
        let top = y + HEAD - 10.0 + STEP * at as f64;
        let length = |value: f64| (value / scale).min(1.0) * room;
        let colour = match *peer {
            "tidegate" => "#0b6e4f",
            "relay" | "relay-tls" => "#c9c9c9",
            _ => "#8aa5bf",
        };
        let cut = if spread.median > scale { " …" } else { "" };
        let (middle, left) = (top + BAR / 2.0, x + NAME_WIDTH);
        let _ = writeln!(
            text,
            "<text x=\"{name_end}\" y=\"{line}\" text-anchor=\"end\" fill=\"#333333\">{name}</text>\
             <rect x=\"{left}\" y=\"{top}\" width=\"{bar:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>\
             <line x1=\"{least:.1}\" x2=\"{most:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#1a1a1a\" stroke-width=\"1.2\"/>\
             <text x=\"{value_at:.1}\" y=\"{line}\" fill=\"#333333\">{value}{cut}</text>",
            name_end = left - 6.0,
            line = top + 10.5,
            name = escaped(peer),
            bar = length(spread.median).max(1.0),
            least = left + length(spread.min),
            most = left + length(spread.max),
            value_at = left + length(spread.max) + 5.0,
            value = number(spread.median),
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
