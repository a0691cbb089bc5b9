// The page asks a few calls of the API again and again, and draws what they answer. What the
// answers contain, guests and neighbours may have made up: it gets into the page as text only.

const second = 1000;
const every = { ports: 2 * second, tables: 6 * second, retry: 3 * second };
const limit = { rows: 500, drops: 200, events: 300, cells: 40, groups: 14, samples: 60 };

const $ = (id) => document.getElementById(id);
const collator = new Intl.Collator('en', { numeric: true });
const tokenKey = 'vswitch-token';

// make returns an element with a class and children, which are elements or text.
function make(tag, cls, ...children) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  e.append(...children);
  return e;
}

// draw returns an SVG element.
function draw(tag, attributes, ...children) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

// clean replaces what might change the text around it.
const clean = (s) => String(s).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}]/gu, '?');

function setText(e, s) {
  if (e.textContent !== s) e.textContent = s;
}

// short writes a number as `vswitch top` does: 0, 7, 999, 1.2k, 345M.
function short(v) {
  if (v < 999.5) return v.toFixed(0);
  for (const unit of 'kMGT') {
    v /= 1000;
    if (v < 9.95) return v.toFixed(1) + unit;
    if (v < 999.5) return v.toFixed(0) + unit;
  }
  return (v / 1000).toFixed(0) + 'P';
}

// bitRate writes a rate with its unit: 1.2 kbit/s.
const bitRate = (v) => short(v).replace(/^([\d.]+)(.?)$/, '$1 $2bit/s');

const count = (n) => n.toLocaleString('en');

function span(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min` : `${Math.floor(s)} s`;
}

// The API.

let token = '';

class Unauthorized extends Error {}
class Refused extends Error {}

async function ask(path, signal) {
  const a = await fetch(path, {
    headers: { Authorization: 'Bearer ' + token }, cache: 'no-store', credentials: 'omit', signal,
  });
  if (a.status === 401) throw new Unauthorized();
  if (!a.ok) {
    const e = await a.json().catch(() => ({}));
    throw new Refused(e.error || `${path}: status ${a.status}`);
  }
  return a;
}

const get = async (path) => (await ask(path, AbortSignal.timeout(20 * second))).json();

// getIf asks a feature that may be off.
async function getIf(on, path) {
  return on ? get(path).catch((e) => { if (e instanceof Refused) return null; throw e; }) : null;
}

// State: what was answered last.

const view = {
  sw: null, ports: [], rates: new Map(), past: new Map(), before: null, at: 0,
  fdb: [], vlans: [], stp: null, lldp: [], words: new Map(), events: [], cursor: '',
  sort: 'name', descending: false, chosen: '', paused: false,
};

// rateOf returns what a port carried in a second since another sample.
function rateOf(p, b, seconds) {
  const per = (now, then) => (now - (now < then ? 0 : then)) / seconds;
  const r = {
    rxBits: 8 * per(p.rx.bytes, b.rx.bytes), rxFrames: per(p.rx.frames, b.rx.frames),
    txBits: 8 * per(p.tx.bytes, b.tx.bytes), txFrames: per(p.tx.frames, b.tx.frames),
    drops: 0, fast: null, by: new Map(),
  };
  for (const way of ['rx', 'tx']) {
    for (const [why, n] of Object.entries(p[way].dropped)) {
      const d = per(n, b[way].dropped[why] ?? 0);
      r.drops += d;
      r.by.set(way + why, d);
    }
  }
  if (r.rxFrames > 0) r.fast = Math.min(1, per(p.fastpath.frames, b.fastpath.frames) / r.rxFrames);
  return r;
}

async function sample() {
  const [sw, ports] = await Promise.all([get('/v1/switch'), get('/v1/ports')]);
  const now = performance.now();
  const was = new Map((view.before ?? ports).map((p) => [p.name + ' ' + p.number, p]));
  const none = { rx: { bytes: 0, frames: 0, dropped: {} }, tx: { bytes: 0, frames: 0, dropped: {} }, fastpath: { frames: 0 } };
  const seconds = Math.max((now - view.at) / second, 0.001);
  view.rates = new Map();
  for (const p of ports) {
    const r = rateOf(p, was.get(p.name + ' ' + p.number) ?? none, seconds);
    view.rates.set(p.name, r);
    const past = view.past.get(p.name) ?? [];
    if (view.before) past.push(r.rxBits + r.txBits);
    if (past.length > limit.samples) past.shift();
    view.past.set(p.name, past);
  }
  for (const name of view.past.keys()) if (!view.rates.has(name)) view.past.delete(name);
  [view.sw, view.ports, view.before, view.at] = [sw, ports, ports, now];
  showHead();
  showPorts();
  showDrops();
  showDetail();
  showMap();
}

async function tables() {
  if (!view.words.size) view.words = new Map((await get('/v1/drops')).map((d) => [d.name, d.words]));
  const { stp, settings } = view.sw ?? (await get('/v1/switch'));
  [view.fdb, view.vlans, view.stp, view.lldp] = await Promise.all(
    [get('/v1/fdb'), get('/v1/vlans'), getIf(stp, '/v1/stp'), getIf(settings.lldp, '/v1/lldp')]);
  showStations();
  showVLANs();
  showDetail();
  showMap();
}

// Tables.

// fill makes a table's body have these rows, each a list of cells; text stands for a cell.
function fill(id, rows, nothing) {
  const body = $(id).tBodies[0];
  const width = $(id).tHead.rows[0].cells.length;
  if (!rows.length) {
    const td = make('td', 'none', nothing);
    td.colSpan = width;
    body.replaceChildren(make('tr', '', td));
    return;
  }
  // Rows stay where they are, so that a selection and the place of scrolling do.
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, i) => {
    const row = body.rows[i] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    cells.forEach((c, j) => {
      const td = row.cells[j] ?? row.insertCell();
      td.removeAttribute('colspan');
      const cls = c.cls ?? '';
      if (td.className !== cls) td.className = cls;
      const s = clean(c.text ?? c);
      if (c.port) nameButton(td, s);
      else if (td.childElementCount || td.textContent !== s) td.textContent = s;
    });
  });
}

// nameButton makes a cell name a port, and show all about it when it is pressed.
function nameButton(td, name) {
  let b = td.firstElementChild;
  if (!b || td.childNodes.length > 1) {
    b = make('button');
    b.type = 'button';
    b.addEventListener('click', () => choose(b.textContent));
    td.replaceChildren(b);
  }
  setText(b, name);
}

const right = (text) => ({ text, cls: 'n' });
const port = (text) => (text ? { text, port: true } : '-');

const signs = { up: '●', 'no-carrier': '○', waiting: '◔', down: '✕' };

function vlanText(v) {
  switch (v.mode) {
    case 'access': return `${v.access}`;
    case 'qinq': return `qinq ${v.qinq}`;
    case 'trunk': return 'trunk ' + ranges(v.trunk) + (v.native ? ` native ${v.native}` : '');
  }
  return '-';
}

function ranges(list) {
  const parts = [];
  for (let i = 0; i < list.length;) {
    let j = i;
    while (j + 1 < list.length && list[j + 1] === list[j] + 1) j++;
    parts.push(i === j ? `${list[i]}` : `${list[i]}-${list[j]}`);
    i = j + 1;
  }
  return parts.join(',');
}

const states = ['up', 'no-carrier', 'waiting', 'down'];

function byState(counts) {
  return states.filter((s) => counts[s]).map((s) => `${counts[s]} ${s}`).join(', ') || 'none';
}

function showHead() {
  const s = view.sw;
  setText($('name'), clean(s.name));
  document.title = `${clean(s.name)} – vswitch`;
  setText($('about'), clean(`vswitch ${s.version}, ${s.mac}, up ${span(s.uptime_s)}`));
  const sum = { rxBits: 0, txBits: 0, drops: 0, rxFrames: 0, fast: 0 };
  for (const r of view.rates.values()) {
    for (const key of ['rxBits', 'txBits', 'drops', 'rxFrames']) sum[key] += r[key];
    sum.fast += (r.fast ?? 0) * r.rxFrames;
  }
  const fast = !s.fastpath.on ? `off: ${s.fastpath.reason}` : sum.rxFrames ? `${Math.round((100 * sum.fast) / sum.rxFrames)}% of frames` : 'on';
  const facts = {
    Ports: byState(s.ports), In: bitRate(sum.rxBits), Out: bitRate(sum.txBits), Drops: short(sum.drops) + '/s',
    'Fast path': fast, Stations: `${count(s.fdb.size)} of ${count(s.fdb.capacity)}`,
  };
  const list = $('totals');
  for (const [i, [key, value]] of Object.entries(facts).entries()) {
    const div = list.children[i] ?? list.appendChild(make('div', '', make('dt', '', key), make('dd')));
    setText(div.lastElementChild, clean(value));
  }
}

const rows = new Map(); // of ports, by name

// sortKey returns what the ports are sorted by.
function sortKey(p) {
  const r = view.rates.get(p.name);
  switch (view.sort) {
    case 'name': return p.name;
    case 'kind': return p.kind;
    case 'state': return states.indexOf(p.state);
    case 'vlan': return vlanText(p.vlan);
  }
  return r[view.sort] ?? -1;
}

function showPorts() {
  const text = $('ports-filter').value.trim().toLowerCase();
  const has = (p) => [p.name, p.kind, p.state, vlanText(p.vlan)].some((s) => s.toLowerCase().includes(text));
  const some = view.ports.filter(has);
  const sign = view.descending ? -1 : 1;
  const compare = (a, b) => (typeof a === 'string' ? collator.compare(a, b) : a - b);
  some.sort((a, b) => sign * compare(sortKey(a), sortKey(b)) || collator.compare(a.name, b.name));
  setText($('ports-count'), text ? `${some.length} of ${view.ports.length}` : `${view.ports.length}`);
  const body = $('ports-table').tBodies[0];
  if (!some.length) {
    const td = make('td', 'none', view.ports.length ? 'No port has this.' : 'There are no ports; `vswitch add-port vm0` adds one.');
    td.colSpan = 11;
    body.replaceChildren(make('tr', '', td));
    return;
  }
  const wanted = some.map((p) => portRow(p));
  if (wanted.length !== body.rows.length || wanted.some((row, i) => body.rows[i] !== row)) body.replaceChildren(...wanted);
  for (const name of rows.keys()) if (!view.rates.has(name)) rows.delete(name);
}

// portRow returns the row of a port, with what is known of it now.
function portRow(p) {
  let row = rows.get(p.name);
  if (!row) {
    row = make('tr');
    for (let i = 0; i < 11; i++) row.insertCell();
    nameButton(row.cells[0], p.name);
    row.cells[0].title = p.name;
    row.cells[10].className = 'spark';
    row.cells[10].append(draw('svg', { viewBox: '0 0 80 15', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, draw('path', { d: '' })));
    rows.set(p.name, row);
  }
  const r = view.rates.get(p.name);
  row.className = p.name === view.chosen ? 'chosen' : '';
  setText(row.cells[1], clean(p.kind));
  const state = row.cells[2];
  const reason = clean(p.reason ?? '');
  if (state.dataset.shown !== p.state + reason) {
    state.dataset.shown = p.state + reason;
    state.replaceChildren(make('span', p.state, `${signs[p.state] ?? '?'} ${p.state}`));
    if (reason) state.append(' ', make('span', 'why', reason));
    state.title = reason;
  }
  setText(row.cells[3], vlanText(p.vlan));
  row.cells[3].title = vlanText(p.vlan);
  const numbers = [r.rxBits, r.rxFrames, r.txBits, r.txFrames, r.drops];
  numbers.forEach((v, i) => {
    const cell = row.cells[4 + i];
    setText(cell, short(v));
    const cls = v < 0.5 ? 'n zero' : i === 4 ? 'n bad' : 'n';
    if (cell.className !== cls) cell.className = cls;
  });
  row.cells[9].className = r.fast === null ? 'n zero' : 'n';
  setText(row.cells[9], r.fast === null ? '-' : `${Math.round(100 * r.fast)}%`);
  row.cells[10].firstElementChild.firstElementChild.setAttribute('d', sparkline(view.past.get(p.name) ?? []));
  return row;
}

function sparkline(past) {
  const top = Math.max(...past, 1000);
  return past.map((v, i) => `${i ? 'L' : 'M'}${(80 - (past.length - 1 - i) * (80 / (limit.samples - 1))).toFixed(1)} ${(14 - (13 * v) / top).toFixed(1)}`).join('');
}

// lost lists the drops of ports: {port, way, why, n, rate}.
function lost(ports) {
  const all = [];
  for (const p of ports) {
    for (const way of ['rx', 'tx']) {
      for (const [why, n] of Object.entries(p[way].dropped)) {
        all.push({ port: p.name, way, why, n, rate: view.rates.get(p.name).by.get(way + why) ?? 0 });
      }
    }
  }
  return all.sort((a, b) => b.rate - a.rate || b.n - a.n || collator.compare(a.port, b.port));
}

const inWords = (d) => (view.words.get(d.why) ?? d.why).replaceAll('DEV', d.port);

function showDrops() {
  const all = lost(view.ports);
  const frames = all.reduce((sum, d) => sum + d.n, 0);
  setText($('drops-count'), (frames === 1 ? '1 frame' : `${count(frames)} frames`) + (all.length > limit.drops ? `; the first ${limit.drops} of ${count(all.length)} lines` : ''));
  fill('drops-table', all.slice(0, limit.drops).map((d) =>
    [port(d.port), { text: inWords(d), cls: 'wrap' }, { text: short(d.rate), cls: d.rate < 0.5 ? 'n zero' : 'n bad' }, right(count(d.n))]),
  'Every frame was delivered.');
}

function showStations() {
  const text = $('stations-filter').value.trim().toLowerCase();
  const some = view.fdb.filter((e) => [e.mac, `${e.vlan}`, e.port, e.type].some((s) => s.toLowerCase().includes(text)));
  setText($('stations-count'), (text ? `${count(some.length)} of ` : '') + count(view.fdb.length) +
    (some.length > limit.rows ? `; the first ${limit.rows} are shown` : ''));
  fill('stations-table', some.slice(0, limit.rows).map((e) =>
    [{ text: e.mac, cls: 'addr' }, right(`${e.vlan}`), port(e.port), e.type, right(e.type === 'static' || e.type === 'local' ? '-' : span(e.age_s))]),
  text ? 'No station has this.' : 'No station was heard yet.');
}

// few writes a list of names, but not hundreds of them.
function few(names) {
  if (!names.length) return '-';
  const sorted = [...names].sort(collator.compare);
  return sorted.slice(0, 24).join(', ') + (sorted.length > 24 ? ` and ${sorted.length - 24} more` : '');
}

function showVLANs() {
  const lines = [];
  let last = null;
  for (const v of view.vlans) {
    const same = `${v.untagged} ${v.tagged}`;
    if (last && last.to + 1 === v.vlan && last.same === same) {
      last.to = v.vlan;
      continue;
    }
    lines.push((last = { from: v.vlan, to: v.vlan, same, v }));
  }
  setText($('vlans-count'), count(view.vlans.length));
  fill('vlans-table', lines.map((l) =>
    [l.from === l.to ? `${l.from}` : `${l.from}-${l.to}`, { text: few(l.v.untagged), cls: 'wrap' }, { text: few(l.v.tagged), cls: 'wrap' }]), 'None.');
}

// Events.

function eventText(e) {
  let s = e.type;
  if (e.mac) s += `  ${e.mac} VLAN ${e.vlan ?? 1}`;
  else if (e.vlan) s += `  VLAN ${e.vlan}`;
  if (e.from && e.to) s += `  ${e.from} → ${e.to}`;
  else if (e.from) s += `  from ${e.from}`;
  else if (e.to) s += `  ${e.to}`;
  if (e.address) s += `  ${e.address}`;
  if (e.count) s += `  ${count(e.count)}`;
  if (e.keys) s += `  ${e.keys.join(', ')}`;
  if (e.reason) s += `: ${e.reason}`;
  return s;
}

function showEvents() {
  setText($('events-count'), view.events.length ? 'newest first' : '');
  fill('events-table', view.events.map((e) =>
    [{ text: clock(new Date(e.time)), cls: 'muted' }, e.port ? port(e.port) : '', { text: eventText(e), cls: 'wrap' }]), 'Nothing happened in the last hour.');
}

const clock = (d) => d.toLocaleTimeString('en-GB') + '.' + String(d.getMilliseconds()).padStart(3, '0');

// follow adds events to the page as they come, until the connection ends.
async function follow(signal) {
  const a = await ask('/v1/events?follow=true&since=' + encodeURIComponent(view.cursor || '1h'), signal).catch((e) => {
    if (e instanceof Refused) view.cursor = ''; // forgotten, or of an earlier run
    throw e;
  });
  const reader = a.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ''; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) {
      const e = JSON.parse(line);
      view.cursor = `${e.epoch}-${e.seq}`;
      view.events.unshift(e);
    }
    view.events.length = Math.min(view.events.length, limit.events);
    if (!view.paused) showEvents();
  }
}

// All about one port.

function choose(name) {
  view.chosen = name;
  showPorts();
  showDetail();
  showMap();
  if (name) {
    $('detail-title').focus({ preventScroll: true });
    $('detail').scrollIntoView({ block: 'nearest' });
  }
}

function unchoose() {
  const row = rows.get(view.chosen);
  choose('');
  row?.querySelector('button').focus();
}

function showDetail() {
  const p = view.ports.find((p) => p.name === view.chosen);
  $('detail').hidden = !p;
  if (!p) return;
  setText($('detail-title'), clean(`Port ${p.name}`));
  const { name, kind, ...settings } = p.spec;
  const behind = view.fdb.filter((e) => e.port === p.name);
  const tree = treeOf(p.name);
  const facts = {
    State: p.state + (p.reason ? `: ${p.reason}` : ''),
    Kind: p.kind,
    Interface: p.ifname ? `${p.ifname}, MTU ${p.mtu}` : '',
    Machine: p.guest_mac ?? '',
    VLAN: p.vlan.mode === 'transparent' ? 'transparent: tags pass unchanged' : vlanText(p.vlan),
    'Fast path': p.fastpath.on ? 'on' : `off: ${(p.fastpath.off ?? []).join('; ')}`,
    Received: `${count(p.rx.frames)} frames, ${count(p.rx.bytes)} bytes, ${count(p.fastpath.frames)} frames by the fast path`,
    Sent: `${count(p.tx.frames)} frames, ${count(p.tx.bytes)} bytes`,
    Drops: lost([p]).map((d) => `${count(d.n)} ${d.way === 'rx' ? 'in' : 'out'}: ${inWords(d)}`),
    'Spanning tree': tree ? `${tree.role}, ${tree.state}${tree.blocked ? `: ${tree.blocked}` : ''}` : '',
    Neighbour: neighbours(p.name).map((n) => `${n.system_name || n.chassis}, ${n.port}`),
    Stations: behind.slice(0, 20).map((e) => `${e.mac} VLAN ${e.vlan}, ${e.type}`).concat(behind.length > 20 ? [`and ${count(behind.length - 20)} more`] : []),
    Settings: Object.entries(settings).map(([key, v]) => `${key.replaceAll('_', '-')} ${typeof v === 'object' ? JSON.stringify(v) : v}`),
  };
  const list = $('detail-facts');
  const all = [];
  for (const [key, value] of Object.entries(facts)) {
    const lines = [value].flat().filter(Boolean).map(clean);
    if (lines.length) all.push([key, lines.join('\n')]);
  }
  const shown = JSON.stringify(all);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...all.flatMap(([key, value]) =>
    [make('dt', '', key), make('dd', '', ...value.split('\n').map((line) => make('div', '', line)))]));
}

const neighbours = (name) => view.lldp?.filter((p) => p.name === name).flatMap((p) => p.neighbors) ?? [];

// The drawing: networks above the switch, stations below it, by VLAN.

const treeOf = (name) => view.stp?.ports.find((t) => t.port === name);
const bits = (ports) => ports.reduce((sum, p) => sum + (view.rates.get(p.name)?.rxBits ?? 0) + (view.rates.get(p.name)?.txBits ?? 0), 0);

// thick returns the width of a line that carries so much: one more for each factor of 100.
const thick = (bits) => (1 + Math.max(0, Math.log10(bits / 1e4)) / 1.4).toFixed(1);

function fit(s, width) {
  const n = Math.max(3, Math.floor(width / 6.7));
  s = clean(s);
  return s.length > n ? s.slice(0, n - 1) + '…' : s;
}

function showMap() {
  if (!view.sw) return;
  const box = $('drawing');
  const width = Math.max(260, Math.floor(box.clientWidth - 16));
  const nets = view.ports.filter((p) => !p.station).sort((a, b) => collator.compare(a.name, b.name));
  const stations = view.ports.filter((p) => p.station);
  const groups = new Map();
  for (const p of stations.sort((a, b) => collator.compare(a.name, b.name))) {
    const v = p.vlan.mode === 'access' ? `VLAN ${p.vlan.access}` : p.vlan.mode === 'transparent' ? 'no VLANs' : vlanText(p.vlan);
    groups.set(v, [...(groups.get(v) ?? []), p]);
  }
  const named = [...groups].sort((a, b) => collator.compare(a[0], b[0]));

  const kids = [];
  const top = drawNetworks(kids, nets, width);
  const second = !view.stp ? '' : !view.stp.root_port ? 'root of the tree' : `root ${view.stp.root}, cost ${view.stp.root_cost}, by ${view.stp.root_port}`;
  kids.push(draw('rect', { class: 'switch', x: 0.5, y: top, width: width - 1, height: second ? 36 : 24, rx: 3 }));
  kids.push(label(8, top + 16, fit(view.sw.name, width / 2), 'font-weight', '600'));
  if (second) kids.push(minor(8, top + 30, fit(second, width - 16)));
  let y = top + (second ? 36 : 24);
  const spine = y;
  let end = y;
  for (const [name, ports] of named.slice(0, limit.groups)) {
    y += 12;
    end = y + 10;
    y = drawGroup(kids, name, ports, y, width, stations.length > limit.cells);
  }
  if (named.length) kids.unshift(draw('path', { class: 'wire', d: `M8 ${spine}V${end}` }));
  if (named.length > limit.groups) {
    kids.push(minor(24, y + 18, `and ${named.length - limit.groups} more VLANs; the table of VLANs has all`));
    y += 22;
  }
  const words = `${view.sw.name}: ${nets.length} ports to networks, ${stations.length} ports to stations in ${groups.size} groups` +
    (second ? `; ${second}` : '');
  const svg = draw('svg', { viewBox: `0 0 ${width} ${y + 6}`, height: y + 6, role: 'img', 'aria-label': clean(words) }, ...kids);
  box.replaceChildren(svg);
  setText($('map-note'), view.stp ? 'spanning tree' : 'no spanning tree');
  showLinks(nets);
}

function label(x, y, text, ...attribute) {
  const t = draw('text', { x, y }, text);
  if (attribute.length) t.setAttribute(...attribute);
  return t;
}

const minor = (x, y, text) => draw('text', { x, y, class: 'minor' }, text);

// drawNetworks draws a box for each network, with the wire to the switch, and returns where the
// switch begins.
function drawNetworks(kids, nets, width) {
  if (!nets.length) return 4.5;
  const fits = Math.max(1, Math.floor((width + 10) / 120));
  const some = nets.length > fits ? nets.slice(0, fits - 1) : nets;
  const cell = Math.min(200, (width + 10) / Math.min(nets.length, fits)) - 10;
  some.forEach((p, i) => {
    const x = i * (cell + 10) + 0.5, n = neighbours(p.name)[0], t = treeOf(p.name);
    const blocked = t && t.state !== 'forwarding';
    const far = n ? n.system_name || n.chassis : 'a network';
    kids.push(draw('rect', { class: 'box', x, y: 4.5, width: cell, height: 34, rx: 3 }, draw('title', {}, clean(n ? `${far}, ${n.port}` : far))));
    kids.push(label(x + 6, 18, fit(far, cell - 10)));
    kids.push(minor(x + 6, 32, fit(n ? n.port : p.kind, cell - 10)));
    kids.push(draw('path', { class: `wire${blocked || p.state !== 'up' ? ' blocked' : ''}`, d: `M${x + 14} 38.5V86`, 'stroke-width': thick(bits([p])) }));
    kids.push(...dot(x + 14, 62, p));
    kids.push(label(x + 26, 58, fit(p.name, cell - 26)));
    const role = p.state !== 'up' ? p.state : t ? `${t.role}${blocked ? ', ' + t.state : ''}` : bitRate(bits([p]));
    const text = minor(x + 26, 73, fit(role, cell - 26));
    if (blocked || p.state === 'down') text.setAttribute('class', 'bad');
    kids.push(text);
  });
  if (some.length < nets.length) kids.push(minor(some.length * (cell + 10) + 6, 26, `and ${nets.length - some.length} more`));
  return 86.5;
}

// dot is the sign of a port's state.
function dot(x, y, p) {
  const all = [draw('circle', { class: `dot ${p.state}`, cx: x, cy: y, r: 4.5 }, draw('title', {}, clean(`${p.name}: ${p.state}${p.reason ? `: ${p.reason}` : ''}`)))];
  if (p.state === 'down') all.push(draw('path', { class: 'dot down', d: `M${x - 2.5} ${y - 2.5}l5 5m0 -5l-5 5` }));
  return all;
}

// drawGroup draws the stations of a VLAN, one by one or as a bar of states, and returns where it
// ends.
function drawGroup(kids, name, ports, y, width, many) {
  kids.unshift(draw('path', { class: 'wire', d: `M8 ${y + 10}H26`, 'stroke-width': thick(bits(ports)) }));
  kids.push(label(30, y + 14, fit(name, 98), 'font-weight', '600'));
  const left = 140, room = width - left;
  if (many) {
    const counts = Object.fromEntries(states.map((s) => [s, ports.filter((p) => p.state === s).length]));
    let x = left;
    const bar = Math.max(60, room * 0.4);
    for (const s of states.filter((s) => counts[s])) {
      const w = (bar * counts[s]) / ports.length;
      kids.push(draw('rect', { class: `part ${s}`, x, y: y + 4, width: Math.max(1, w - 1), height: 12 }, draw('title', {}, `${counts[s]} ${s}`)));
      x += w;
    }
    kids.push(minor(left + bar + 8, y + 14, fit(`${byState(counts)}; ${bitRate(bits(ports))}`, room - bar - 8)));
    return y + 20;
  }
  const columns = Math.max(1, Math.floor(room / 104)), cell = room / columns;
  ports.forEach((p, i) => {
    const x = left + (i % columns) * cell, top = y + Math.floor(i / columns) * 24;
    kids.push(draw('rect', { class: p.name === view.chosen ? 'switch' : 'cell', x: x + 0.5, y: top + 0.5, width: cell - 6, height: 20, rx: 3 }));
    kids.push(...dot(x + 11, top + 10.5, p));
    kids.push(label(x + 20, top + 14.5, fit(p.name, cell - 30)));
  });
  return y + Math.ceil(ports.length / columns) * 24;
}

// showLinks lists what the drawing says of networks, in words.
function showLinks(nets) {
  $('links').hidden = !nets.length;
  fill('links-table', nets.flatMap((p) => {
    const t = treeOf(p.name);
    const tree = t ? `${t.role}, ${t.state}` : '-';
    const all = neighbours(p.name);
    return (all.length ? all : [null]).map((n) => [
      port(p.name), { text: tree, cls: t && t.state !== 'forwarding' ? 'bad' : '' }, right(t ? `${t.cost}` : '-'),
      n ? n.system_name || n.chassis : '-', n ? n.port : '-', n?.addresses?.join(', ') || '-']);
  }), '');
}

// The course of things.

const wakers = new Set();

const rest = (ms) => new Promise((done) => {
  const wake = () => { clearTimeout(timer); wakers.delete(wake); done(); };
  const timer = setTimeout(wake, ms);
  wakers.add(wake);
});

const idle = () => view.paused || document.hidden || !token;

let lostAt = null; // since when nothing is answered

function say(text, cls) {
  setText($('status'), text);
  $('status').className = cls;
  document.body.classList.toggle('stale', cls === 'lost');
}

function answered() {
  lostAt = null;
  say(view.paused ? 'Paused' : 'Live', view.paused ? 'paused' : '');
  $('main').hidden = false;
}

function failed(e) {
  if (e instanceof Unauthorized) {
    forget('The token is not, or no longer, the right one. `vswitch web` prints this page’s address with its token.');
    return;
  }
  lostAt ??= new Date();
  say(e instanceof Refused ? clean(e.message) : `No answer since ${lostAt.toLocaleTimeString('en-GB')}; trying again`, 'lost');
}

// forget asks for another token.
function forget(why) {
  token = '';
  sessionStorage.removeItem(tokenKey);
  $('main').hidden = true;
  $('login').hidden = false;
  if (why) setText($('login-why'), why);
  say('Not connected', 'lost');
}

function begin(given) {
  token = given;
  sessionStorage.setItem(tokenKey, token);
  $('login').hidden = true;
  say('Connecting', '');
  for (const wake of wakers) wake();
}

async function loop(interval, f) {
  for (;;) {
    if (!idle()) await f().then(answered, failed);
    await rest(interval);
  }
}

async function followAll() {
  for (;;) {
    if (!idle()) await follow().catch((e) => e instanceof Unauthorized && failed(e));
    await rest(every.retry);
  }
}

// tokenOf takes the token out of the page's address, where others might see it.
function tokenOf() {
  const m = /^#token=([\w-]+)$/.exec(location.hash);
  if (m) history.replaceState(null, '', location.pathname);
  return m?.[1] ?? '';
}

for (const th of document.querySelectorAll('th[data-sort]')) {
  const b = make('button');
  b.append(...th.childNodes);
  th.append(b);
  b.addEventListener('click', () => {
    const words = ['name', 'kind', 'state', 'vlan'].includes(th.dataset.sort);
    view.descending = view.sort === th.dataset.sort ? !view.descending : !words;
    view.sort = th.dataset.sort;
    showSort();
    showPorts();
  });
}

function showSort() {
  for (const th of document.querySelectorAll('th[data-sort]')) {
    if (th.dataset.sort === view.sort) th.setAttribute('aria-sort', view.descending ? 'descending' : 'ascending');
    else th.removeAttribute('aria-sort');
  }
}

$('ports-filter').addEventListener('input', showPorts);
$('stations-filter').addEventListener('input', showStations);
$('detail-close').addEventListener('click', unchoose);
document.addEventListener('keydown', (e) => {
  if (e.key === 'Escape' && view.chosen && e.target.type !== 'search') unchoose();
});
$('pause').addEventListener('click', () => {
  view.paused = !view.paused;
  $('pause').setAttribute('aria-pressed', view.paused);
  if (!lostAt) answered();
  if (!view.paused) showEvents();
  for (const wake of wakers) wake();
});
$('login').addEventListener('submit', (e) => {
  e.preventDefault();
  begin($('token').value.trim().replace(/^.*#token=/, ''));
  $('token').value = '';
});
addEventListener('hashchange', () => {
  const given = tokenOf();
  if (given) begin(given);
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) for (const wake of wakers) wake();
});
new ResizeObserver(showMap).observe($('map'));

showSort();
const given = tokenOf() || sessionStorage.getItem(tokenKey);
if (given) begin(given);
else forget('');
loop(every.ports, sample);
loop(every.tables, tables);
followAll();
