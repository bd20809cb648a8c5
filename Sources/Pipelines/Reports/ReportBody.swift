// The page's skeleton.

/// What is between the tags of `body`, before facts and numbers; the script fills it.
let reportBody = #"""
    <header id="top">
    <div id="title"><h1></h1><p id="summary"></p></div>
    <div id="buttons">
    <button type="button" id="theme" aria-pressed="false">Dark</button>
    <button type="button" id="help" aria-haspopup="dialog">Keys <kbd>?</kbd></button>
    </div>
    </header>
    <noscript><p class="note">This report is drawn by its own script, which this browser does not run.</p></noscript>
    <div id="notes"></div>
    <main>
    <section id="scores" aria-label="What the model decided" hidden></section>
    <section id="reading" aria-labelledby="reading-title">
    <h2 id="reading-title">Text</h2>
    <div id="controls">
    <label>Shaded by <select id="measure"></select></label>
    <label>Layer <select id="layer"></select></label>
    <label>Head <select id="head"></select></label>
    <span class="field">
    <label for="find">Token or text</label>
    <input id="find" type="search" autocomplete="off" spellcheck="false" placeholder="number or words" size="14">
    </span>
    </div>
    <div class="legend" id="text-legend"></div>
    <canvas id="overview" height="22" aria-hidden="true"></canvas>
    <div id="text" tabindex="0" role="group" aria-labelledby="reading-title" aria-describedby="text-help"></div>
    <p id="text-help" class="small">Pick a token with a click or the arrow keys. Outlined tokens are the keys it looks at.
    <span id="hover"></span></p>
    <p id="printed" class="small"></p>
    </section>
    <aside id="side">
    <section id="token" aria-labelledby="token-title"></section>
    <section id="grid" aria-labelledby="grid-title">
    <h2 id="grid-title">Layers and heads</h2>
    <div class="row"><label>Each head’s <select id="grid-measure"></select></label></div>
    <div class="legend" id="grid-legend"></div>
    <div id="grid-table"></div>
    </section>
    </aside>
    <section id="maps" aria-labelledby="maps-title" hidden>
    <h2 id="maps-title">Block maps</h2>
    <p class="small" id="maps-text"></p>
    <div class="legend" id="map-legend"></div>
    <div class="pair">
    <figure><canvas id="all-maps" role="img"></canvas><figcaption>Every head: layers downwards, heads to the right. <span class="screen">Click one.</span></figcaption></figure>
    <figure><canvas id="one-map" role="img"></canvas><figcaption id="map-caption"></figcaption></figure>
    </div>
    </section>
    <section id="profiles" aria-labelledby="profiles-title" hidden>
    <h2 id="profiles-title">Along the document</h2>
    <p class="small" id="profiles-text"></p>
    <div id="charts"></div>
    </section>
    <section id="probes" aria-labelledby="probes-title" hidden>
    <h2 id="probes-title">What the answer leans on</h2>
    <div id="probe-tables"></div>
    </section>
    <section id="about" aria-labelledby="about-title">
    <h2 id="about-title">About these numbers</h2>
    <ul id="about-list"></ul>
    </section>
    </main>
    <dialog id="keys" aria-labelledby="keys-title">
    <h2 id="keys-title">Keys</h2>
    <table>
    <tr><th scope="row"><kbd>←</kbd> <kbd>→</kbd></th><td>token before, token behind</td></tr>
    <tr><th scope="row"><kbd>↑</kbd> <kbd>↓</kbd></th><td>line above, line below</td></tr>
    <tr><th scope="row"><kbd>Home</kbd> <kbd>End</kbd></th><td>first token, last token</td></tr>
    <tr><th scope="row"><kbd>PageUp</kbd> <kbd>PageDown</kbd></th><td>256 tokens back, forward</td></tr>
    <tr><th scope="row"><kbd>p</kbd> <kbd>n</kbd></th><td>query before, behind of which keys are kept</td></tr>
    <tr><th scope="row"><kbd>k</kbd> <kbd>j</kbd></th><td>layer above, layer below</td></tr>
    <tr><th scope="row"><kbd>h</kbd> <kbd>l</kbd></th><td>head to the left, to the right</td></tr>
    <tr><th scope="row"><kbd>a</kbd></th><td>all layers and heads</td></tr>
    <tr><th scope="row"><kbd>m</kbd> <kbd>w</kbd></th><td>next shading; shading by where the token looks</td></tr>
    <tr><th scope="row"><kbd>g</kbd> <kbd>/</kbd></th><td>go to a token’s number, or find text (Enter: the next place)</td></tr>
    <tr><th scope="row"><kbd>t</kbd></th><td>light or dark</td></tr>
    <tr><th scope="row"><kbd>Esc</kbd></th><td>no token; closes this</td></tr>
    </table>
    <form method="dialog"><button>Close</button></form>
    </dialog>
    <div id="spoken" role="status" aria-live="polite"></div>
    """#
