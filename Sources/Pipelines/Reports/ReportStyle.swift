// The page's style: light and dark, wide and narrow, on paper.

/// The style sheet, whole: its digest is in the page's policy.
let reportStyle = #"""

    :root {
      color-scheme: light dark;
      --ground: light-dark(#f6f5f2, #141518);
      --card: light-dark(#ffffff, #1d1f23);
      --ink: light-dark(#1d1e22, #e7e6e2);
      --quiet: light-dark(#5b5d66, #a3a5ad);
      --line: light-dark(#dddbd5, #34373e);
      --accent: light-dark(#14508f, #8dbdf5);
      --shade: light-dark(#f0a83c, #8f5208);
      --less: light-dark(#6aa6e6, #2c64a5);
      --chip: light-dark(#ecebe6, #2b2e34);
    }
    :root[data-theme="light"] { color-scheme: light; }
    :root[data-theme="dark"] { color-scheme: dark; }
    * { box-sizing: border-box; }
    [hidden] { display: none !important; }
    body {
      margin: 0 auto; padding: 0 24px 48px; max-width: 1480px; background: var(--ground); color: var(--ink);
      font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
    }
    h1 { font-size: 21px; line-height: 1.3; margin: 0; overflow-wrap: anywhere; font-weight: 650; }
    h2 { font-size: 15px; margin: 0 0 10px; font-weight: 650; }
    p { margin: 0 0 10px; }
    header { display: flex; justify-content: space-between; align-items: flex-start; gap: 16px; padding: 22px 0 14px; }
    #summary { color: var(--quiet); margin: 2px 0 0; overflow-wrap: anywhere; }
    #buttons { display: flex; gap: 8px; flex: none; }
    main { display: grid; grid-template-columns: minmax(0, 1fr) 424px; gap: 16px; align-items: start; }
    section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; min-width: 0; }
    #side { display: grid; gap: 16px; min-width: 0; }
    #scores, #maps, #profiles, #probes, #about { grid-column: 1 / -1; }
    .small, figcaption { font-size: 13px; color: var(--quiet); }
    .note { border-left: 3px solid var(--shade); padding: 6px 12px; margin: 0 0 12px; background: var(--card); }
    button, select, input {
      font: inherit; font-size: 14px; color: var(--ink); background: var(--card); border: 1px solid var(--line);
      border-radius: 6px; padding: 4px 9px; min-height: 32px; max-width: 100%;
    }
    button { cursor: pointer; }
    select { max-width: 260px; }
    button:hover, select:hover { border-color: var(--quiet); }
    :focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
    kbd {
      font: 12px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; border: 1px solid var(--line); border-radius: 4px;
      padding: 0 5px; background: var(--chip);
    }
    #controls, .row { display: flex; flex-wrap: wrap; gap: 8px 14px; margin-bottom: 12px; }
    #controls label, .row label { display: inline-flex; align-items: center; gap: 6px; color: var(--quiet); font-size: 13px; min-width: 0; }
    .field { display: inline-flex; align-items: center; gap: 6px; }
    .legend { display: flex; flex-wrap: wrap; align-items: flex-end; gap: 4px 12px; margin-bottom: 12px; font-size: 12px; color: var(--quiet); }
    .legend .bar { width: 240px; max-width: 100%; }
    .legend .ramp { height: 10px; border-radius: 2px; border: 1px solid var(--line); width: 100%; display: block; }
    .legend .ticks { position: relative; height: 17px; }
    .legend .ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
    .legend .ticks span:first-child { transform: none; }
    .legend .ticks span:last-child { transform: translateX(-100%); }
    #overview { display: block; width: 100%; height: 22px; border: 1px solid var(--line); border-radius: 4px; margin-bottom: 10px; cursor: pointer; }
    #text {
      height: min(66vh, 720px); overflow-y: auto; border: 1px solid var(--line); border-radius: 6px; padding: 10px 16px;
      font-size: 16px; line-height: 1.85; overflow-wrap: anywhere; white-space: pre-wrap; margin-bottom: 8px; position: relative;
    }
    #text.fits { height: auto; max-height: min(66vh, 720px); }
    .chunk { unicode-bidi: plaintext; }
    .chunk .from { display: block; font-size: 11px; line-height: 1.4; color: var(--quiet); user-select: none; margin-top: 6px; }
    .token {
      border-radius: 3px; padding: 2px 0; cursor: pointer;
      background: color-mix(in oklab, var(--tint, var(--shade)) var(--share, 0%), transparent);
    }
    .token:hover { outline: 1px solid var(--quiet); }
    .token.special, .token.bare {
      font: 12px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; padding: 1px 4px; margin: 0 2px;
      border: 1px solid var(--line); color: var(--ink); vertical-align: 1px;
    }
    .token.hasKeys { text-decoration: underline dotted 1px color-mix(in oklab, var(--quiet) 60%, transparent); text-underline-offset: 4px; }
    .token.isKey { box-shadow: 0 0 0 var(--ring, 1px) var(--accent); }
    .token.isPicked, .token.isPicked:hover { outline: 2px solid var(--ink); outline-offset: 1px; box-shadow: none; }
    .code { font: 11px/1 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--quiet); background: var(--chip); border-radius: 3px; padding: 0 2px; }
    #token { min-height: 330px; }
    .picked { font-size: 17px; font-weight: 600; overflow-wrap: anywhere; }
    .picked bdi { background: var(--chip); padding: 1px 6px; border-radius: 4px; font-weight: 600; }
    dl { display: grid; grid-template-columns: minmax(min-content, 1fr) auto; gap: 3px 14px; margin: 8px 0 12px; font-size: 14px; }
    dt { color: var(--quiet); }
    dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
    h3 { font-size: 13px; font-weight: 600; color: var(--quiet); margin: 0 0 6px; }
    .bars { width: 100%; border-collapse: collapse; font-size: 14px; }
    .bars td, .bars th { padding: 2px 0; text-align: left; font-weight: 400; }
    .bars .place { width: 1%; padding-right: 10px; color: var(--quiet); font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; font-size: 12px; }
    .bars .name { width: 44%; max-width: 150px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .bars .name button { border: 0; background: none; padding: 0 2px; min-height: 24px; max-width: 100%; overflow: hidden; text-overflow: ellipsis; text-align: left; }
    .bars .value { width: 1%; padding-left: 10px; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
    .meter { display: block; height: 10px; background: var(--chip); border-radius: 2px; overflow: hidden; }
    .meter i { display: block; height: 100%; background: var(--accent); }
    .meter i.less { background: var(--less); }
    .meter i.more { background: var(--shade); }
    #grid-table { overflow-x: auto; }
    #grid-table table { border-collapse: separate; border-spacing: 3px; width: 100%; table-layout: fixed; font-size: 11px; }
    #grid-table th { font-weight: 400; color: var(--quiet); text-align: center; padding: 0; font-variant-numeric: tabular-nums; }
    #grid-table tr:first-child th:first-child { width: 26px; }
    #grid-table td { padding: 0; min-width: 12px; }
    #grid-table td button {
      display: block; width: 100%; height: 25px; min-height: 0; padding: 0; border: 0; border-radius: 3px; font-size: 10.5px;
      overflow: hidden; font-variant-numeric: tabular-nums; letter-spacing: -0.02em;
    }
    #grid-table td button.isChosen { outline: 2px solid var(--ink); outline-offset: 1px; }
    #grid-table td button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    .pair { display: flex; flex-wrap: wrap; gap: 24px; align-items: flex-start; }
    figure { margin: 0; min-width: 0; flex: 1 1 420px; }
    canvas { max-width: 100%; }
    #all-maps { cursor: pointer; width: 100%; }
    #one-map { width: 100%; max-width: 640px; }
    #charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 20px; }
    #charts svg { width: 100%; height: auto; display: block; overflow: visible; }
    #charts text { font-size: 11px; fill: var(--quiet); }
    #charts .axis { stroke: var(--line); }
    #charts .curve { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
    #charts .mark { stroke: var(--shade); stroke-width: 1.5; }
    #scores .bars { max-width: 560px; }
    #probe-tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 24px; }
    #about ul { margin: 0; padding-left: 20px; font-size: 14px; max-width: 90ch; }
    #about li { margin-bottom: 4px; }
    dialog { border: 1px solid var(--line); border-radius: 10px; background: var(--card); color: var(--ink); padding: 20px 24px; max-width: 520px; }
    dialog::backdrop { background: rgb(0 0 0 / 0.4); }
    dialog th { text-align: left; white-space: nowrap; padding: 3px 18px 3px 0; font-weight: 400; }
    dialog td { padding: 3px 0; }
    dialog form { margin-top: 14px; text-align: right; }
    #spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    #printed { display: none; }
    @media (max-width: 1000px) {
      main { grid-template-columns: minmax(0, 1fr); }
    }
    @media (max-width: 560px) {
      body { padding: 0 12px 32px; }
      section { padding: 14px 12px; }
      #text { padding: 8px 10px; font-size: 15px; }
      #text, #text.fits { max-height: 56vh; }
      #grid-table td button { font-size: 0; height: 22px; }
      header { flex-wrap: wrap; }
      #help kbd { display: none; }
    }
    @media (prefers-reduced-motion: no-preference) {
      .token { transition: background-color 120ms; }
    }
    @media print {
      :root, :root[data-theme] { color-scheme: light; --ground: #fff; }
      @page { margin: 14mm; }
      * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
      body { padding: 0; font-size: 11px; max-width: none; }
      main { display: block; }
      section { border: 0; padding: 0; margin-bottom: 16px; }
      #side { display: block; }
      #token, #grid, #maps, figure, #probes table, .chart { break-inside: avoid; }
      h2 { break-after: avoid; }
      #buttons, .field, .screen, #text-help, #overview, dialog { display: none; }
      select { appearance: none; border: 0; padding: 0; min-height: 0; font-size: 11px; color: #000; }
      #text, #text.fits { height: auto; max-height: none; overflow: visible; border: 0; padding: 0; font-size: 11px; line-height: 1.75; }
      #token { min-height: 0; }
      #printed { display: block; }
      .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
    }

    """#
