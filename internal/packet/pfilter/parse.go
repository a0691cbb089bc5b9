package pfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Bounds of an expression, so that nobody can make every frame expensive.
const (
	maxText  = 4096 // bytes
	maxTerms = 64   // primitives
	maxDepth = 32   // of parentheses and nots
)

// protocols maps words to the protocols they match.
var protocols = map[string]Filter{
	"arp":   etherProto(eth.TypeARP),
	"ip":    etherProto(eth.TypeIPv4),
	"ip6":   etherProto(eth.TypeIPv6),
	"tcp":   ipProto(0, eth.ProtoTCP),
	"udp":   ipProto(0, eth.ProtoUDP),
	"icmp":  ipProto(4, protoICMP),
	"icmp6": ipProto(6, protoICMPv6),
}

// Protocol numbers (IANA, Assigned Internet Protocol Numbers).
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// spread puts spaces around the operators that need none.
var spread = strings.NewReplacer("(", " ( ", ")", " ) ", "!", " ! ", "&&", " && ", "||", " || ")

// Compile reads an expression; see Grammar.
func Compile(text string) (Filter, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("a filter of %d bytes is too long; use %d at most", len(text), maxText)
	}
	p := &parser{words: strings.Fields(spread.Replace(text))}
	f, err := p.or()
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("%q does not belong there; join expressions with and, or", p.words[0])
	}
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return f, nil
}

// parser reads an expression by recursive descent.
type parser struct {
	words []string // still to be read
	terms int
	depth int
}

// take removes the next word if it is one of choices, and returns it.
func (p *parser) take(choices ...string) string {
	if len(p.words) == 0 || !slices.Contains(choices, p.words[0]) {
		return ""
	}
	return p.next()
}

// next removes the next word and returns it, or "" at the end.
func (p *parser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *parser) or() (Filter, error) { return p.list(p.and, anyOf, "or", "||") }

func (p *parser) and() (Filter, error) { return p.list(p.not, allOf, "and", "&&") }

func (p *parser) list(operand func() (Filter, error), joined func([]Filter) Filter, operators ...string) (Filter, error) {
	var parts []Filter
	for {
		f, err := operand()
		if err != nil {
			return nil, err
		}
		parts = append(parts, f)
		if p.take(operators...) == "" {
			return joined(parts), nil
		}
	}
}

func (p *parser) not() (Filter, error) {
	open := p.take("not", "!", "(")
	if open == "" {
		return p.primitive()
	}
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("it is nested more than %d deep; write it flatter", maxDepth)
	}
	defer func() { p.depth-- }()
	if open == "(" {
		f, err := p.or()
		if err == nil && p.take(")") == "" {
			err = fmt.Errorf("a parenthesis is not closed; add )")
		}
		return f, err
	}
	f, err := p.not()
	if err != nil {
		return nil, err
	}
	return not(f), nil
}

func (p *parser) primitive() (Filter, error) {
	if p.terms++; p.terms > maxTerms {
		return nil, fmt.Errorf("it has more than %d parts; use several mirrors", maxTerms)
	}
	switch p.take("ether", "vlan") {
	case "ether":
		return p.ether()
	case "vlan":
		return p.vlan()
	}
	proto, word := uint8(0), ""
	if len(p.words) > 0 {
		word = p.words[0]
	}
	if f, ok := protocols[word]; ok {
		p.next()
		switch {
		case word != "tcp" && word != "udp", len(p.words) == 0, !slices.Contains([]string{"src", "dst", "port"}, p.words[0]):
			return f, nil
		case word == "tcp":
			proto = eth.ProtoTCP
		default:
			proto = eth.ProtoUDP
		}
	}
	s := p.side()
	switch what := p.next(); {
	case what == "port":
		n, err := strconv.ParseUint(p.next(), 10, 16)
		if err != nil {
			return nil, fmt.Errorf("a port is a number from 0 to 65535, as in: port 53")
		}
		return l4Port(proto, uint16(n), s), nil
	case proto != 0:
		return nil, fmt.Errorf("after tcp or udp comes a port, as in: tcp dst port 80")
	case what == "host":
		addr, err := netip.ParseAddr(p.next())
		if err != nil || addr.Zone() != "" {
			return nil, fmt.Errorf("a host is an IP address, as in: host 10.0.0.1")
		}
		addr = addr.Unmap()
		return ipNet(netip.PrefixFrom(addr, addr.BitLen()), s), nil
	case what == "net":
		net, err := netip.ParsePrefix(p.next())
		if err != nil || net.Addr().Is4In6() {
			return nil, fmt.Errorf("a network is an address and a length, as in: net 10.0.0.0/8")
		}
		return ipNet(net, s), nil
	case what == "":
		return nil, fmt.Errorf("something is missing at its end; write it as: arp or host 10.0.0.1")
	default:
		return nil, fmt.Errorf("%q is not understood; `vswitch mirror add --help` has the words there are", what)
	}
}

func (p *parser) side() side {
	switch p.take("src", "dst") {
	case "src":
		return source
	case "dst":
		return destination
	}
	return either
}

// vlan reads the rest of that term: an optional VID, 0 meaning a priority tag.
func (p *parser) vlan() (Filter, error) {
	if len(p.words) == 0 || p.words[0][0] < '0' || p.words[0][0] > '9' {
		return vlanTag(anyVID), nil
	}
	vid, err := strconv.ParseUint(p.next(), 10, 16)
	if err != nil || vid > port.MaxVID {
		return nil, fmt.Errorf("a VLAN is a number from 0 to %d, as in: vlan 10", port.MaxVID)
	}
	return vlanTag(int(vid)), nil
}

// ether reads the rest of that term.
func (p *parser) ether() (Filter, error) {
	switch p.take("proto", "broadcast", "multicast") {
	case "proto":
		n, err := strconv.ParseUint(p.next(), 0, 16)
		if err != nil {
			return nil, fmt.Errorf("an EtherType is a number of 16 bits, as in: ether proto 0x88cc")
		}
		return etherProto(uint16(n)), nil
	case "broadcast":
		return broadcast, nil
	case "multicast":
		return multicast, nil
	}
	s := p.side()
	if p.take("host") == "" && s == either {
		return nil, fmt.Errorf("after ether comes host, src, dst, proto, broadcast or multicast")
	}
	mac, err := port.ParseMAC(p.next())
	if err != nil {
		return nil, err
	}
	return etherHost(mac, s), nil
}
