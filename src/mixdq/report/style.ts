/** The report's looks. Few bits are warm, many are cool; the same order in light and dark. */
export const STYLE = `
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1d2430;--muted:#667085;--line:#e4e2dc;
--b2:#e0703a;--b3:#d9a327;--b4:#2a9d8f;--b8:#3353a4;--b16:#9aa1ad;--dot:#fff}
@media (prefers-color-scheme:dark){:root{--paper:#12151b;--card:#1a1e26;--ink:#e8eaee;--muted:#98a1b0;--line:#2c323d;
--b2:#f08a56;--b3:#e6bb4d;--b4:#3fbfae;--b8:#7d9bf0;--b16:#5c6472;--dot:#12151b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1200px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 22px;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:18px;margin:0 0 14px;letter-spacing:-.01em}
h3{font-size:14px;font-weight:600;margin:22px 0 4px}
.kicker{margin:0 0 4px;color:var(--muted);font-size:13px;letter-spacing:.04em}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;margin:20px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 14px}
.tiles+.tiles{margin-top:12px}
.tiles b{display:block;font-size:21px;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tiles span{color:var(--muted);font-size:12.5px;line-height:1.35;display:block}
.keys{display:flex;flex-wrap:wrap;gap:6px 18px;margin:0 0 14px;font-size:13px;color:var(--muted)}
.key{display:inline-flex;align-items:center;gap:7px}
.key i{width:13px;height:13px;border-radius:3px;display:inline-block;position:relative}
${[2, 3, 4, 8, 16].map((bits) => `.key.b${bits} i{background:var(--b${bits})}.cell.b${bits} rect{fill:var(--b${bits})}`).join("\n")}
.key.ours i{background:var(--b8);transform:rotate(45deg) scale(.8);border-radius:1px}.key.others i{background:var(--b2)}.key.trial i{background:var(--ink)}
.key.others i,.key.trial i{width:8px;height:8px;border-radius:50%}
.key.dot i{background:var(--b8)}.key.dot i::after{content:"";position:absolute;inset:4px;border-radius:50%;background:var(--dot)}
.cell circle{fill:var(--dot)}.cell:hover rect{stroke:var(--ink);stroke-width:2}
.scroll{overflow-x:auto}
svg{display:block;width:100%;height:auto}
.map{margin:0 auto}.map text{fill:var(--muted);font:10px system-ui,sans-serif}
.map .block{font-size:12px;font-weight:600;fill:var(--ink)}.map .unit{font-size:9px}
.skip{fill:none;stroke:var(--muted);stroke-width:1.2;opacity:.6}
figure{margin:0 0 6px}
figure{overflow-x:auto}section>figure svg{min-width:860px}.pair svg{min-width:460px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px}
.caption{color:var(--muted);font-size:13px;margin:12px 0 0;max-width:86ch;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums;margin:16px 0 0;white-space:nowrap}
th{color:var(--muted);font-weight:500;font-size:12.5px}
th,td{text-align:right;padding:5px 14px 5px 0;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
th:last-child,td:last-child{padding-right:0}
td small{color:var(--muted);font-size:11.5px;font-weight:400;margin-left:4px}
tr:last-child td{border-bottom:0}
.compared tr:first-child td{font-weight:600}
code{font-size:12px}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:16px}
.pictures div{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.pictures img{width:100%;border-radius:6px;display:block}
figcaption{color:var(--muted);font-size:13px;margin-top:6px}
footer{color:var(--muted);font-size:13px}
@media (max-width:600px){main{padding:24px 12px 40px}section{padding:18px 16px}}
@media print{
body{background:none;font-size:13px}main{padding:0}section{padding:12px 14px}tr,figure,h2,h3,.tiles div{break-inside:avoid}h2,h3{break-after:avoid}
.scroll,figure{overflow:visible}svg{min-width:0!important}.pair{grid-template-columns:1fr 1fr}table{font-size:9.5px}th,td small{font-size:8.5px}th,td{padding:3px 6px 3px 0}.measured{font-size:8.5px}.measured th,.measured small{font-size:8px;margin-left:1px}
.key i{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
`;
