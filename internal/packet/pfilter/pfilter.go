// Package pfilter selects frames by a user's expression, in the language of pcap-filter(7)
// as far as it concerns Ethernet. Compile turns an expression into a Filter; the package
// does no I/O. Any goroutine may call a Filter: it reads the given frame, keeps nothing,
// allocates nothing, and has an answer for every input.
//
// An expression means what tcpdump means by it, with these differences, which users ask
// tcpdump for. Protocols, addresses and ports are found behind VLAN tags and behind IPv6
// extension headers. tcp[N] and its like read IPv6 packets too. A byte that a frame lacks
// makes only that comparison false. A name of a service is just a number.
package pfilter

import (
	"github.com/vswitch/vswitch/port"
)

// Filter is a compiled expression.
type Filter struct{ root *node }

// Match reports whether the filter selects f, whose outer tag is tag; f's own Tag and VLAN
// do not count. f.Data may hold the frame with its outer tag if tag is 0.
func (e *Filter) Match(f *port.Frame, tag port.Tag) bool {
	v := view{frame: f, data: f.Data, tag: tag}
	v.findPayload()
	return e.root.match(&v)
}

// Grammar is the language as a command's help shows it.
const Grammar = `    arp rarp ip ip6 tcp udp sctp icmp icmp6 igmp pim vrrp esp ah stp
                                            frames of that protocol
    vlan [VID]                              with a VLAN tag, which is the outer one;
                                            a second vlan after and is the next tag
    [src|dst] host ADDRESS                  of or to an IP address, ARP included;
                                            [ip|ip6|arp] host ADDRESS only that protocol
    [src|dst] net ADDRESS/LENGTH            of or to a network; also net 10.1
    [tcp|udp|sctp] [src|dst] port N         of or to a port, a number or a name: port ssh
    [tcp|udp|sctp] [src|dst] portrange N-N  of or to a port of a range
    ether [src|dst] host MAC                of or to a station
    ether proto N                           of an EtherType, such as 0x88cc or arp
    [ip|ip6] proto N                        of a protocol of IP, such as 47 or gre
    [ether] broadcast, [ether|ip|ip6] multicast
                                            to all, to a group
    less N, greater N                       at most, at least N bytes long
    A = B, A != B, A < B, A <= B, A > B, A >= B
                                            of numbers, len, PROTO[AT] and PROTO[AT:SIZE],
                                            with + - * / % & | ^ << >>, as in
                                            tcp[tcpflags] & tcp-syn != 0
    not EXPR, EXPR and EXPR, EXPR or EXPR, (EXPR)
                                            not binds closest; and and or bind alike, from
                                            the left. port 80 or 443 means port 80 or port 443`
