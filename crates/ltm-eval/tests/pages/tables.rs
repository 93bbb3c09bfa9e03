//! A page's tables and texts as a reader sees them.

/// A table's rows of cells, the head first.
pub type Table = Vec<Vec<String>>;

/// The table that follows a text of the page.
pub fn table_after(html: &str, text: &str) -> Table {
    let (_, rest) = html.split_once(text).unwrap_or_else(|| panic!("`{text}` is not in\n{html}"));
    let (_, rest) = rest.split_once("<table>").expect("a table");
    let (table, _) = rest.split_once("</table>").expect("its end");
    let cells = |row: &str| {
        let cell = |cell: &str| plain(cell.split_once('>').expect("a whole tag").1);
        row.replace("<th", "<td").split("<td").skip(1).map(cell).collect()
    };
    table.split("<tr").skip(1).map(|row| cells(row.split("</tr>").next().unwrap_or(""))).collect()
}

/// The items of the list that follows a text of the page.
pub fn list_after(html: &str, text: &str) -> Vec<String> {
    let (_, rest) = html.split_once(text).unwrap_or_else(|| panic!("`{text}` is not in\n{html}"));
    let list = rest.split("</ol>").next().and_then(|rest| rest.split("</ul>").next());
    let items = list.unwrap_or_default().split("<li>").skip(1);
    items.map(|item| plain(item.split("</li>").next().unwrap_or_default())).collect()
}

/// Text without its tags.
pub fn plain(html: &str) -> String {
    let mut text = String::new();
    for (idx, part) in html.replace("<br>", " ").split('<').enumerate() {
        let shown = if idx == 0 { part } else { part.split_once('>').map_or("", |(_, text)| text) };
        text.push_str(shown);
    }
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&amp;", "&").trim().into()
}
