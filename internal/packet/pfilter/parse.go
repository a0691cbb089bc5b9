package pfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Bounds of an expression, so that nobody can make every frame expensive.
const (
	maxText  = 4096 // bytes
	maxTerms = 64   // primitives and numbers
	maxDepth = 32   // of parentheses, nots and minus signs
)

// Compile reads an expression; see Grammar.
func Compile(text string) (*Filter, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("a filter of %d bytes is too long; use %d at most", len(text), maxText)
	}
	tokens, err := split(text)
	p := &parser{tokens: tokens}
	var root *node
	if err == nil {
		root, err = p.expr()
	}
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("%q does not belong there; join expressions with and, or", p.tokens[0])
	}
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return &Filter{root}, nil
}

// parser reads an expression by recursive descent.
type parser struct {
	tokens []string // still to be read
	terms  int
	depth  int
	last   *head // of the term just read, for "port 80 or 443"; nil: it has none
}

// head is what stands in front of an address or number.
type head struct {
	proto string // "": none
	side  side
	what  string // host, net, port, portrange, proto; "": an address without one
}

// peek returns the token at an index, or "" behind the end.
func (p *parser) peek(at int) string {
	if at < len(p.tokens) {
		return p.tokens[at]
	}
	return ""
}

// take removes the next token if it is one of choices, and returns it.
func (p *parser) take(choices ...string) string {
	if len(p.tokens) == 0 || !slices.Contains(choices, p.tokens[0]) {
		return ""
	}
	return p.next()
}

// next removes the next token and returns it, or "" at the end.
func (p *parser) next() string {
	t := p.peek(0)
	if len(p.tokens) > 0 {
		p.tokens = p.tokens[1:]
	}
	return t
}

// deeper counts a level of nesting; the caller takes it back by p.depth--.
func (p *parser) deeper() error {
	if p.depth++; p.depth > maxDepth {
		return fmt.Errorf("it is nested more than %d deep; write it flatter", maxDepth)
	}
	return nil
}

// term counts a primitive or number.
func (p *parser) term() error {
	if p.terms++; p.terms > maxTerms {
		return fmt.Errorf("it has more than %d parts; write a shorter one", maxTerms)
	}
	return nil
}

func (p *parser) expr() (*node, error) { return p.chain(p.operand) }

// chain reads operands joined by and, or, which bind alike, from the left.
func (p *parser) chain(operand func() (*node, error)) (*node, error) {
	left, err := operand()
	if err != nil {
		return nil, err
	}
	for {
		word := p.take("and", "&&", "or", "||")
		if word == "" {
			return left, nil
		}
		right, err := operand()
		if err != nil {
			return nil, err
		}
		if word == "and" || word == "&&" {
			behindTags(right, tagsOf(left))
			left = &node{op: opAnd, a: left, b: right}
		} else {
			left = &node{op: opOr, a: left, b: right}
		}
	}
}

// tagsOf returns how many tags a frame has for sure that the expression matches.
func tagsOf(n *node) int {
	switch n.op {
	case opVLAN:
		return 1
	case opAnd:
		return tagsOf(n.a) + tagsOf(n.b)
	case opOr:
		return min(tagsOf(n.a), tagsOf(n.b))
	}
	return 0
}

// behindTags makes vlan in an expression mean the tag behind the given number of tags.
func behindTags(n *node, tags int) {
	if n == nil || tags == 0 {
		return
	}
	if n.op == opVLAN {
		n.depth += tags
	}
	behindTags(n.a, tags)
	behindTags(n.b, tags)
}

// operand reads not EXPR, (EXPR) or a primitive.
func (p *parser) operand() (*node, error) {
	if p.isNumber() {
		p.last = nil
		return p.comparison()
	}
	open := p.take("not", "!", "(")
	if open == "" {
		return p.primitive()
	}
	return p.nested(open, p.operand)
}

// nested reads what follows a not, or an opening parenthesis.
func (p *parser) nested(open string, operand func() (*node, error)) (*node, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	if open == "(" {
		n, err := p.chain(operand)
		if err == nil && p.take(")") == "" {
			err = fmt.Errorf("a parenthesis is not closed; add )")
		}
		return n, err
	}
	n, err := operand()
	return &node{op: opNot, a: n}, err
}

func (p *parser) primitive() (*node, error) {
	if err := p.term(); err != nil {
		return nil, err
	}
	last := p.last
	p.last = nil
	word := p.peek(0)
	switch word {
	case "":
		return nil, fmt.Errorf("something is missing at its end; write it as: arp or host 10.0.0.1")
	case "less", "greater":
		p.next()
		return p.length(word)
	case "vlan":
		p.next()
		return p.vlan()
	case "broadcast", "multicast":
		return p.group("ether")
	case "src", "dst", "host", "net", "port", "portrange", "proto":
		return p.headed("")
	}
	if f, ok := protocols[word]; ok || word == "ether" || word == "link" {
		p.next()
		switch p.peek(0) {
		case "src", "dst", "host", "net", "port", "portrange", "proto":
			return p.headed(word)
		case "broadcast", "multicast":
			return p.group(word)
		}
		if !ok {
			return nil, fmt.Errorf("after ether comes host, src, dst, proto, broadcast or multicast")
		}
		return &f, nil
	}
	if instead := absent[word]; instead != "" {
		return nil, fmt.Errorf("%s is not supported; %s", word, instead)
	}
	if last != nil {
		return p.id(last)
	}
	if _, err := port.ParseMAC(word); err == nil {
		return nil, fmt.Errorf("before a MAC address comes ether host, as in: ether host %s", word)
	}
	if _, err := netip.ParseAddr(word); err == nil {
		return nil, fmt.Errorf("before an address comes host, as in: host %s", word)
	}
	return nil, fmt.Errorf("%q is not understood; `vswitch capture --help` has the words there are", word)
}

// length reads the rest of less N, greater N.
func (p *parser) length(word string) (*node, error) {
	n, ok := parseNumber(p.next())
	if !ok {
		return nil, fmt.Errorf("after %s comes a length in bytes, as in: %s 128", word, word)
	}
	length, bound := &number{op: 'l'}, &number{op: 'c', constant: n}
	if word == "less" {
		length, bound = bound, length
	}
	return &node{op: opAtLeast, left: length, right: bound}, nil
}

// vlan reads the rest of that term: an optional VID, 0 meaning a priority tag.
func (p *parser) vlan() (*node, error) {
	word := p.peek(0)
	if word == "" || word[0] < '0' || word[0] > '9' {
		return &node{op: opVLAN, any: true}, nil
	}
	vid, ok := parseNumber(p.next())
	if !ok || vid > port.MaxVID {
		return nil, fmt.Errorf("a VLAN is a number from 0 to %d, as in: vlan 10", port.MaxVID)
	}
	return &node{op: opVLAN, lo: uint16(vid)}, nil
}

// group reads broadcast or multicast after a protocol.
func (p *parser) group(proto string) (*node, error) {
	switch word := p.next(); {
	case proto == "ether" && word == "broadcast":
		return &node{op: opBroadcast}, nil
	case proto == "ether":
		return &node{op: opMulticast}, nil
	case proto == "ip" && word == "multicast":
		return &node{op: opIPMulticast}, nil
	case proto == "ip6" && word == "multicast":
		return &node{op: opIP6Multicast}, nil
	case proto == "ip":
		return nil, fmt.Errorf("ip broadcast depends on a netmask, which a switch does not have; write dst host 10.0.0.255, or ether broadcast")
	default:
		return nil, fmt.Errorf("%s %s has no meaning; write ether %s", proto, word, word)
	}
}

// headed reads a term that begins with qualifiers, of which proto has been read.
func (p *parser) headed(proto string) (*node, error) {
	if proto == "link" {
		proto = "ether"
	}
	h := &head{proto: proto, side: p.side()}
	h.what = p.take("host", "net", "port", "portrange", "proto")
	var fits []string
	switch h.what {
	case "port", "portrange":
		fits = []string{"", "tcp", "udp", "sctp"}
	case "proto":
		fits = []string{"", "ether", "ip", "ip6"}
		if h.side != either {
			return nil, fmt.Errorf("proto has no src and dst; write it without")
		}
	case "net":
		fits = []string{"", "ip", "ip6", "arp", "rarp"}
	default:
		fits = []string{"", "ether", "ip", "ip6", "arp", "rarp"}
	}
	if !slices.Contains(fits, proto) {
		what := h.what
		if what == "" {
			what = "src or dst alone"
		}
		return nil, fmt.Errorf("%s does not go with %s; before it may stand %s", what, proto, strings.Join(fits[1:], ", "))
	}
	return p.id(h)
}

// side reads src, dst, src or dst, src and dst.
func (p *parser) side() side {
	first := p.take("src", "dst")
	if first == "" {
		return either
	}
	s, other := source, "dst"
	if first == "dst" {
		s, other = destination, "src"
	}
	if p.peek(1) != other {
		return s
	}
	switch p.peek(0) {
	case "or", "||":
		p.tokens = p.tokens[2:]
		return either
	case "and", "&&":
		p.tokens = p.tokens[2:]
		return both
	}
	return s
}

// id reads an address, number or name, several of them in parentheses, or not one.
func (p *parser) id(h *head) (*node, error) {
	if open := p.take("not", "!", "("); open != "" {
		n, err := p.nested(open, func() (*node, error) {
			if err := p.term(); err != nil {
				return nil, err
			}
			return p.id(h)
		})
		p.last = h
		return n, err
	}
	n, err := p.value(h)
	p.last = h
	return n, err
}

// value reads what h is in front of.
func (p *parser) value(h *head) (*node, error) {
	word := strings.TrimLeft(p.next(), `\`) // tcpdump wants names escaped that are words of the language, too
	switch h.what {
	case "port", "portrange":
		return portsOf(h, word)
	case "proto":
		return protoOf(h, word)
	}
	if h.proto == "ether" {
		mac, err := port.ParseMAC(word)
		if err != nil {
			return nil, err
		}
		return &node{op: opEtherHost, mac: mac, side: h.side}, nil
	}
	return p.address(h, word)
}

// l4Protos are the protocols with ports, by name; "" stands for all.
var l4Protos = map[string][]uint8{"": {6, 17, 132}, "tcp": {6}, "udp": {17}, "sctp": {132}}

// portsOf returns the term for a port or a range of ports.
func portsOf(h *head, word string) (*node, error) {
	n := &node{op: opPort, protos: l4Protos[h.proto], side: h.side}
	first, last, isRange := strings.Cut(word, "-")
	lo, ok := portOf(first)
	hi := lo
	if h.what == "portrange" && isRange {
		var ok2 bool
		hi, ok2 = portOf(last)
		ok = ok && ok2
	} else if lo, ok = portOf(word); ok {
		hi = lo
	}
	switch {
	case ok:
		n.lo, n.hi = min(lo, hi), max(lo, hi)
		return n, nil
	case h.what == "portrange":
		return nil, fmt.Errorf("a range of ports is two numbers from 0 to 65535, as in: portrange 5900-5999")
	case isRange:
		if _, ok := portOf(first); ok {
			return nil, fmt.Errorf("a port is one number; write portrange %s", word)
		}
	}
	return nil, fmt.Errorf("a port is a number from 0 to 65535 or a name such as http, as in: port 53")
}

func portOf(word string) (uint16, bool) {
	if n, ok := services[word]; ok {
		return n, true
	}
	n, ok := parseNumber(word)
	return uint16(n), ok && n <= 0xffff
}

// protoOf returns the term for a protocol by its number or name.
func protoOf(h *head, word string) (*node, error) {
	number, ok := parseNumber(word)
	if h.proto == "ether" {
		if t, named := etherTypes[word]; named {
			number, ok = uint32(t), true
		}
		switch {
		case !ok || number > 0xffff:
			return nil, fmt.Errorf("an EtherType is a number of 16 bits or a name such as arp, as in: ether proto 0x88cc")
		case number > maxLLC:
			return &node{op: opEtherType, types: []uint16{uint16(number)}}, nil
		case number > 0xff:
			return nil, fmt.Errorf("%d is a length, not an EtherType; those begin at %d, and LLC addresses end at 255", number, maxLLC+36)
		}
		n := &node{op: opLLC, lo: uint16(number)}
		if number == 0x06 || number == 0xf0 || number == 0xfe { // IP, NETBEUI and ISO use one address for both sides
			n.hi = uint16(number)<<8 | uint16(number)
		}
		return n, nil
	}
	if named, is := ipProtos[word]; is {
		number, ok = uint32(named), true
	}
	if !ok || number > 0xff {
		return nil, fmt.Errorf("a protocol of IP is a number from 0 to 255 or a name such as gre, as in: ip proto 47")
	}
	types := map[string][]uint16{"": anyIP, "ip": v4, "ip6": v6}[h.proto]
	return &node{op: opProto, types: types, protos: []uint8{uint8(number)}}, nil
}

// address reads the rest of an address or network that begins with word.
func (p *parser) address(h *head, word string) (*node, error) {
	n := &node{op: opAddress, side: h.side, ip: h.proto == "" || h.proto == "ip"}
	switch h.proto {
	case "":
		n.arp = []uint16{eth.TypeARP, typeRARP}
	case "arp":
		n.arp = []uint16{eth.TypeARP}
	case "rarp":
		n.arp = []uint16{typeRARP}
	}
	addr, bits, err := p.network(h, word)
	if err != nil {
		return nil, err
	}
	net, err := addr.Prefix(bits)
	if err != nil {
		return nil, fmt.Errorf("%s has no prefix of %d bits", addr, bits)
	}
	switch {
	case addr.Is4() && h.proto == "ip6", addr.Is6() && h.proto != "" && h.proto != "ip6":
		return nil, fmt.Errorf("%s is no address of %s; leave out %s", addr, h.proto, h.proto)
	}
	n.want, n.bits = net.Addr().AsSlice(), bits
	return n, nil
}

// network reads ADDRESS, ADDRESS/LENGTH or ADDRESS mask MASK. As for tcpdump, 10.1 is a
// network of 16 bits, and net 10 one of 8.
func (p *parser) network(h *head, word string) (addr netip.Addr, bits int, err error) {
	example := map[string]string{"net": "net 10.0.0.0/8", "host": "host 10.0.0.1", "": "src host 10.0.0.1"}[h.what]
	fail := func() (netip.Addr, int, error) {
		what := "a host is an IP address"
		if h.what == "net" {
			what = "a network is an address and a length"
		}
		return addr, 0, fmt.Errorf("%s, as in: %s", what, example)
	}
	dots := strings.Count(word, ".")
	addr, err = netip.ParseAddr(word)
	switch {
	case err == nil:
		bits = addr.BitLen()
	case dots < 3 && (dots > 0 || h.what == "net") && !strings.Contains(word, ":"):
		if addr, err = netip.ParseAddr(word + strings.Repeat(".0", 3-dots)); err != nil {
			return fail()
		}
		bits = 8 * (dots + 1)
	default:
		return fail()
	}
	if addr.Zone() != "" || addr.Is4In6() {
		return fail()
	}
	sign := p.take("/", "mask")
	if sign == "" {
		return addr, bits, nil
	}
	if h.what == "host" {
		return addr, 0, fmt.Errorf("a host has no netmask; write net instead of host")
	}
	word = p.next()
	if sign == "/" {
		n, ok := parseNumber(word)
		if !ok || n > uint32(addr.BitLen()) {
			return fail()
		}
		return addr, int(n), nil
	}
	mask, err := netip.ParseAddr(word)
	if err != nil || !mask.Is4() || !addr.Is4() {
		return addr, 0, fmt.Errorf("a mask belongs to an IPv4 network, as in: net 10.0.0.0 mask 255.0.0.0")
	}
	b := mask.As4()
	ones := leadingOnes(b)
	if masked, err := mask.Prefix(ones); err != nil || masked.Addr() != mask {
		return addr, 0, fmt.Errorf("the mask %s has a gap; use one whose ones come first", mask)
	}
	return addr, ones, nil
}

func leadingOnes(b [4]byte) (n int) {
	for n < 32 && b[n/8]>>(7-n%8)&1 != 0 {
		n++
	}
	return n
}
