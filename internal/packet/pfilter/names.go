package pfilter

import "github.com/vswitch/vswitch/internal/packet/eth"

// typeRARP is the EtherType of RARP (RFC 903).
const typeRARP uint16 = 0x8035

// sapSTP is the LLC address of bridges' protocols (802.1D-2004 clause 9.2).
const sapSTP = 0x42

var (
	anyIP = []uint16{eth.TypeIPv4, eth.TypeIPv6}
	v4    = []uint16{eth.TypeIPv4}
	v6    = []uint16{eth.TypeIPv6}
)

// protocols maps words to what they match.
var protocols = map[string]node{
	"ip":    {op: opEtherType, types: v4},
	"ip6":   {op: opEtherType, types: v6},
	"arp":   {op: opEtherType, types: []uint16{eth.TypeARP}},
	"rarp":  {op: opEtherType, types: []uint16{typeRARP}},
	"stp":   {op: opLLC, lo: sapSTP},
	"tcp":   {op: opProto, types: anyIP, protos: []uint8{6}},
	"udp":   {op: opProto, types: anyIP, protos: []uint8{17}},
	"sctp":  {op: opProto, types: anyIP, protos: []uint8{132}},
	"pim":   {op: opProto, types: anyIP, protos: []uint8{103}},
	"esp":   {op: opProto, types: anyIP, protos: []uint8{50}},
	"ah":    {op: opProto, types: anyIP, protos: []uint8{51}},
	"icmp":  {op: opProto, types: v4, protos: []uint8{1}},
	"igmp":  {op: opProto, types: v4, protos: []uint8{2}},
	"igrp":  {op: opProto, types: v4, protos: []uint8{9}},
	"vrrp":  {op: opProto, types: v4, protos: []uint8{112}},
	"carp":  {op: opProto, types: v4, protos: []uint8{112}},
	"icmp6": {op: opProto, types: v6, protos: []uint8{58}},
}

// headers maps the words that may stand before [ to where their bytes begin.
var headers = map[string]header{
	"ether": {ether: true},
	"link":  {ether: true},
	"ip":    {types: eth.TypeIPv4},
	"ip6":   {types: eth.TypeIPv6},
	"arp":   {types: eth.TypeARP},
	"rarp":  {types: typeRARP},
	"tcp":   {protos: []uint8{6}},
	"udp":   {protos: []uint8{17}},
	"sctp":  {protos: []uint8{132}},
	"pim":   {protos: []uint8{103}},
	"icmp":  {protos: []uint8{1}, only: 4},
	"igmp":  {protos: []uint8{2}, only: 4},
	"vrrp":  {protos: []uint8{112}, only: 4},
	"icmp6": {protos: []uint8{58}, only: 6},
}

// etherTypes are the names of EtherTypes.
var etherTypes = map[string]uint16{
	"ip": eth.TypeIPv4, "ip6": eth.TypeIPv6, "arp": eth.TypeARP, "rarp": typeRARP,
	"lldp": 0x88cc, "mpls": 0x8847, "pppoed": 0x8863, "pppoes": 0x8864, "loopback": 0x9000, "ptp": 0x88f7, "macsec": 0x88e5,
}

// ipProtos are the names of protocols of IP (IANA, Assigned Internet Protocol Numbers).
var ipProtos = map[string]uint8{
	"icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "egp": 8, "igrp": 9, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
	"icmp6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112, "carp": 112, "l2tp": 115, "sctp": 132, "udplite": 136,
}

// services are the names of ports (IANA, Service Name and Transport Protocol Port Number
// Registry): those that people filter by.
var services = map[string]uint16{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "dns": 53, "bootps": 67, "bootpc": 68, "tftp": 69,
	"http": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111, "ntp": 123, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139,
	"imap2": 143, "imap": 143, "snmp": 161, "snmp-trap": 162, "bgp": 179, "ldap": 389, "https": 443, "microsoft-ds": 445,
	"submission": 587, "isakmp": 500, "syslog": 514, "dhcpv6-client": 546, "dhcpv6-server": 547, "rtsp": 554, "ldaps": 636,
	"domain-s": 853, "imaps": 993, "pop3s": 995, "openvpn": 1194, "l2tp": 1701, "radius": 1812, "radius-acct": 1813, "nfs": 2049,
	"iscsi-target": 3260, "mysql": 3306, "vxlan": 4789, "sip": 5060, "mdns": 5353, "postgresql": 5432, "x11": 6000, "geneve": 6081, "redis": 6379,
}

// constants are the names that pcap-filter(7) has for numbers.
var constants = map[string]uint32{
	"tcpflags": 13, "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,

	"icmptype": 0, "icmpcode": 1,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8, "icmp-routeradvert": 9,
	"icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15,
	"icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,

	"icmp6type": 0, "icmp6code": 1,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4, "icmp6-echo": 128,
	"icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131,
	"icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135,
	"icmp6-neighboradvert": 136, "icmp6-redirect": 137, "icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139,
	"icmp6-nodeinformationresponse": 140, "icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142,
	"icmp6-multicastlistenerreportv2": 143, "icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145,
	"icmp6-mobileprefixsolicit": 146, "icmp6-mobileprefixadvert": 147, "icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149,
	"icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152, "icmp6-multicastrouterterm": 153,
}

// absent are words of pcap-filter(7) that the language lacks, with what to write instead.
var absent = map[string]string{
	"mpls":    "write ether proto mpls",
	"pppoed":  "write ether proto pppoed",
	"pppoes":  "write ether proto pppoes",
	"geneve":  "write udp port geneve",
	"vxlan":   "write udp port vxlan",
	"gateway": "write ether host MAC and not host ADDRESS",
	"inbound": "choose the direction beside the filter", "outbound": "choose the direction beside the filter",
	"llc": "write ether[12:2] <= 1500", "isis": "write ether proto 0xfe", "iso": "write ether proto 0xfe", "clnp": "write ether proto 0xfe",
	"esis": "write ether proto 0xfe", "netbeui": "write ether proto 0xf0", "ipx": "write ether proto 0x8137",
	"atalk": "write ether proto 0x809b", "aarp": "write ether proto 0x80f3", "decnet": "write ether proto 0x6003",
	"lat": "write ether proto 0x6004", "sca": "write ether proto 0x6007", "moprc": "write ether proto 0x6002", "mopdl": "write ether proto 0x6001",
	"wlan": "it is of Wi-Fi", "type": "it is of Wi-Fi", "subtype": "it is of Wi-Fi", "dir": "it is of Wi-Fi", "radio": "it is of Wi-Fi",
	"fddi": "write ether", "tr": "write ether", "ppp": "it is of serial lines", "slip": "it is of serial lines",
	"ifname": "choose the ports beside the filter", "ifindex": "choose the ports beside the filter", "on": "choose the ports beside the filter",
	"reason": "it is of OpenBSD's pf", "rset": "it is of OpenBSD's pf", "ruleset": "it is of OpenBSD's pf", "rnr": "it is of OpenBSD's pf",
	"rulenum": "it is of OpenBSD's pf", "srnr": "it is of OpenBSD's pf", "subrulenum": "it is of OpenBSD's pf", "action": "it is of OpenBSD's pf",
	"lane": "it is of ATM", "metac": "it is of ATM", "oam": "it is of ATM", "vpi": "it is of ATM", "vci": "it is of ATM",
	"fisu": "it is of SS7", "lssu": "it is of SS7", "msu": "it is of SS7", "sio": "it is of SS7", "opc": "it is of SS7", "dpc": "it is of SS7",
	"batadv": "write ether proto 0x4305",
}
