# Reports as a browser draws them: the pages of setun lab, setun card and setun dump --graph=html in Chromium.
#
# A copy of each page gets a script before it, which hears of errors and of what its policy refuses, and one behind it,
# which looks at what was laid out (not at the source) and leaves what it finds in the page; --dump-dom brings it back.
# The copy's policy allows these scripts and nothing more than the page's.
. "$(dirname "$0")/lib.sh"
# Other builds make the same pages, more slowly.
[ "${SETUN_LLVM:-1}${SETUN_HARD:-0}" = 10 ] || exit 77
browser=$(command -v chromium || command -v chromium-browser) || { echo "there is no chromium"; exit 77; }
show() { # the page, the file for what the browser says: prints the page as it stands
  timeout 60 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --disable-extensions --user-data-dir="$TMP/$(basename "$1").profile" \
    --window-size=1300,1200 --dump-dom "file://$1" 2>"$2"
}
show /dev/null "$TMP/probe.err" >/dev/null & # while the pages are made
probe=$!

cat >"$TMP/listen.js" <<'JS'
const heard = [];
addEventListener("error", e => heard.push("error: " + (e.message || e.target.src || e.target.href)), true);
addEventListener("securitypolicyviolation", e => heard.push("refused: " + e.blockedURI + " " + e.violatedDirective));
console.error = console.warn = (...words) => heard.push("console: " + words.join(" "));
JS
cat >"$TMP/look.js" <<'JS'
addEventListener("load", () => {
const found = [], texts = [];
const say = (...words) => found.push(words.join(" "));
document.querySelectorAll("details").forEach(d => { d.open = true; });
const inside = (a, b, slack) => a.left >= b.left - slack && a.top >= b.top - slack && a.right <= b.right + slack && a.bottom <= b.bottom + slack;
const light = colour => { const [r, g, b] = colour.match(/[\d.]+/g).map(Number); return (2 * r + 5 * g + b) / 8; };
document.querySelectorAll("svg").forEach((svg, i) => {
  const frame = svg.getBoundingClientRect(), view = svg.viewBox.baseVal, marks = svg.querySelectorAll("circle, polyline, rect, path");
  if (!(view.width > 0 && frame.width > 100 && frame.height > 10)) say("drawing", i, "has no size");
  if (!marks.length) say("drawing", i, "is empty");
  if (Math.abs(frame.width / frame.height - view.width / view.height) > 0.01 * view.width / view.height) say("drawing", i, "is distorted");
  marks.forEach(m => {
    const box = m.getBoundingClientRect();
    if (!(box.width + box.height > 0) && !m.matches(".bar")) say("drawing", i, "has an invisible", m.tagName);
    if (!inside(box, frame, 1)) say("drawing", i, "has outside itself a", m.tagName);
  });
  const words = [...svg.querySelectorAll("text")].filter(t => t.textContent).map(t => ({ what: t.textContent, box: t.getBoundingClientRect() }));
  words.forEach((a, k) => {
    if (!(a.box.width > 0)) say("drawing", i, "has an invisible text:", a.what);
    if (!inside(a.box, frame, 1)) say("drawing", i, "has a text outside:", a.what);
    // What counts is letters: lines of boxes that are taller than these may touch.
    words.slice(k + 1).forEach(b => {
      if (Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left) > 1 &&
          Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top) > 4) say("drawing", i, "has one text on another:", a.what, "|", b.what);
    });
  });
  svg.querySelectorAll("text").forEach(t => { if (light(getComputedStyle(t).fill) > 110) say("a text is too light:", t.textContent); });
  texts.push(marks.length);
});
const back = getComputedStyle(document.body);
if (light(back.color) > 110 || light(back.backgroundColor) < 200) say("dark text on light ground is not what is here");
if (document.documentElement.scrollWidth > innerWidth) say("the page is wider than the window by", document.documentElement.scrollWidth - innerWidth);
performance.getEntriesByType("resource").forEach(r => say("the page asks for", r.name));
const policy = document.querySelector("meta[http-equiv]");
const out = document.createElement("pre");
out.id = "found";
out.textContent = ["policy " + (policy ? policy.content : "none"), "drawings " + texts.join(" "),
  ...[...document.querySelectorAll("table")].flatMap(t => [...t.rows].map(r => "row " + [...r.cells].map(c => c.innerText).join("|"))),
  ...[...found, ...heard].map(f => "wrong " + f), "end"].join("\n");
document.body.append(out);
});
JS
# look PAGE: what the script found, unescaped, in PAGE.found; the page's own words go before it.
look() {
  lua5.4 - "$1" "$TMP/listen.js" "$TMP/look.js" >"$1.copy.html" <<'L'
local page, listen, look = io.open(arg[1]):read("a"), io.open(arg[2]):read("a"), io.open(arg[3]):read("a")
page = page:gsub("default%-src 'none';", "%0 script-src 'unsafe-inline';", 1)
page = page:gsub("<title>", function() return "<script>" .. listen .. "</script><title>" end, 1)
io.write((page:gsub("</body>", function() return "<script>" .. look .. "</script></body>" end)))
L
  show "$1.copy.html" "$1.err" | sed -n '/<pre id="found">/,/<\/pre>/p' | sed 's/.*<pre id="found">//; s/<\/pre>.*//; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g' >"$1.found"
}
sound() { # what, page: nothing is wrong, and the script came to its end
  grep -qx end "$2.found" || bad "$1: the page was not looked at: $(tail -3 "$2.err")"
  grep '^wrong' "$2.found" | head -5 >"$TMP/wrong"
  [ -s "$TMP/wrong" ] && bad "$1: $(cat "$TMP/wrong")"
  grep -q "^policy default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'$" "$2.found" || bad "$1: $(head -1 "$2.found")"
}

# Names as long as they may be, of wide letters, and of what marks up.
head -c 700 "$MODEL/heldout.txt" >"$TMP/text"
wide=$(lua5.4 -e 'print(("三值"):rep(10))') long=$(lua5.4 -e 'print(("Wide "):rep(12))')
cat >"$TMP/x.lua" <<L
return setun.lab { model = "$MODEL", text = "text", window = 32, windows = 1, tokens = 4, prefill = 4, decode = 1,
  variants = { { name = "as it is" }, { name = "$long", packing = "$SOURCE/scripts/packings/sherry.lua" },
               { name = "$wide", kv = "q8" }, { name = "<b>&\"", threads = 1 } } }
L
"$SETUN" lab "$TMP/x.lua" -q >"$TMP/out" 2>"$TMP/err" || bad "lab: $(cat "$TMP/err")"
"$SETUN" dump "$MODEL" --graph=html --time >"$TMP/graph.html" 2>"$TMP/err" || bad "dump: $(cat "$TMP/err")"
"$SETUN" card "$SOURCE/scripts/packings/base3.lua" -q --interpret -o "$TMP/card.html" 2>"$TMP/err" || bad "card: $(cat "$TMP/err")"
page=$TMP/x.lab/report.html
wait $probe || { echo "chromium does not run here: $(tail -1 "$TMP/probe.err")"; exit 77; }
# The same page with mistakes of each kind: whoever looks must see them.
lua5.4 - "$page" >"$TMP/wrong.html" <<'L'
local s = io.open(arg[1]):read("a")
s = s:gsub('<text text%-anchor="middle" x="[%d.]+"', '<text text-anchor="middle" x="300"') -- numbers of an axis in one place
s = s:gsub('(<text text%-anchor="start") x="[%d.]+"', '%1 x="850"', 1)
s = s:gsub("<polyline", '<path d=""/><polyline', 1):gsub("</body>", '<img src="gone.png"/><p style="width:3000px">x</p></body>')
io.write(s)
L
for p in "$page" "$TMP/graph.html"; do look "$p" & done
wait
for p in "$TMP/card.html" "$TMP/wrong.html"; do look "$p" & done
wait
sound "the page of lab" "$page"
sound "the page of a graph" "$TMP/graph.html"
sound "a card" "$TMP/card.html"
for what in 'one text on another: ' 'a text outside: ' 'an invisible path' 'the page is wider' 'the page asks for .*gone.png' 'refused: .*img-src' 'error: .*gone.png'; do
  grep -q "^wrong .*$what" "$TMP/wrong.html.found" || bad "not seen: $what"
done
same "drawings of lab" "$(grep ^drawings "$page.found" | wc -w)" 5
same "drawings of a graph" "$(grep ^drawings "$TMP/graph.html.found" | wc -w)" 7 # four layers, before them, behind them
same "drawings of a card" "$(grep ^drawings "$TMP/card.html.found" | wc -w)" 1

# The table has the numbers of results.json, rounded as its columns say.
lua5.4 - "$TMP/x.lab/results.json" "$page.found" <<'L' || bad "the table is not what results.json has"
local value, order = {}, {}
for line in io.lines(arg[1]) do
  local name, measure = line:match('"variant": "(.-[^\\])", "measure": "(%a+)"')
  if name then
    name = name:gsub('\\"', '"')
    if not value[name] then value[name] = {} order[#order + 1] = name end
    for k, v in line:gmatch('"([%w_]+)": (%-?[%d.e+-]+)') do value[name][measure .. "." .. k] = tonumber(v) end
  end
end
local columns = { "size.bits_per_weight", "size.bytes_per_token", "size.weights_changed", "size.weights_error", "perplexity.ppl", "perplexity.error", "kl.kl",
  "kl.same_top", "layers.worst_layer", "layers.logits", "speed.prefill_tokens_s", "speed.prefill_ratio", "speed.decode_tokens_s", "speed.decode_ratio" }
local times, row, compared = { ["size.bytes_per_token"] = 1e-6, ["size.weights_error"] = 100, ["kl.same_top"] = 100 }, 0, 0
for line in io.lines(arg[2]) do
  local cells = {}
  for c in (line:match("^row (.*)") or ""):gmatch("[^|]+") do cells[#cells + 1] = c end
  if #cells > 0 and cells[1] ~= "variant" then
    row = row + 1
    local name = order[row]
    assert(#cells == #columns + 1, line)
    assert(cells[1]:gsub(" %(base%)$", ""):gsub("%s+$", "") == name:gsub("%s+$", ""), cells[1] .. ", not " .. name)
    for i, column in ipairs(columns) do
      local want, got = value[name][column], tonumber(cells[i + 1])
      assert((want == nil) == (cells[i + 1] == "-"), line)
      if want then
        want = want * (times[column] or 1)
        local digits = #(cells[i + 1]:match("%.(%d+)$") or "")
        assert(math.abs(got - want) <= math.max(0.51 * 10 ^ -digits, 0.0051 * math.abs(want) * (digits == 0 and 1 or 0)), name .. " " .. column)
        compared = compared + 1
      end
    end
  end
end
assert(row == 4 and compared >= 4 * 7 + 3 * 6, row .. " rows, " .. compared .. " numbers")
L
finish
