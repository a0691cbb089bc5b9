package mcast

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// Check returns what is wrong with the configuration and how to fix it.
func (c VLANConfig) Check() error { return c.complete(0) }

// complete fills in the defaults (RFC 3376 section 8, RFC 3810 section 9) and checks
// the rest.
func (c *VLANConfig) complete(mac uint64) error {
	c.IGMPVersion = cmp.Or(c.IGMPVersion, 3)
	c.MLDVersion = cmp.Or(c.MLDVersion, 2)
	c.Robustness = cmp.Or(c.Robustness, 2)
	c.QueryInterval = cmp.Or(c.QueryInterval, 125*time.Second)
	c.ResponseInterval = cmp.Or(c.ResponseInterval, 10*time.Second)
	c.LastMemberInterval = cmp.Or(c.LastMemberInterval, time.Second)
	c.LastMemberCount = cmp.Or(c.LastMemberCount, c.Robustness)
	c.StartupInterval = cmp.Or(c.StartupInterval, c.QueryInterval/4)
	c.StartupCount = cmp.Or(c.StartupCount, c.Robustness)
	c.RouterTimeout = cmp.Or(c.RouterTimeout, 255*time.Second)
	if !c.IPv4.IsValid() {
		c.IPv4 = netip.IPv4Unspecified()
	}
	if !c.IPv6.IsValid() {
		c.IPv6 = linkLocal(mac)
	}
	switch {
	case c.IGMPVersion != 2 && c.IGMPVersion != 3:
		return fmt.Errorf("IGMP version %d cannot be queried; use 2 or 3", c.IGMPVersion)
	case c.MLDVersion != 1 && c.MLDVersion != 2:
		return fmt.Errorf("MLD version %d cannot be queried; use 1 or 2", c.MLDVersion)
	case c.Robustness < 1 || c.Robustness > 7:
		return fmt.Errorf("multicast robustness %d is out of range; use 1 to 7", c.Robustness)
	case c.QueryInterval < time.Second || c.QueryInterval > maxQueryInterval:
		return fmt.Errorf("multicast query interval %v is out of range; use 1s to %v", c.QueryInterval, maxQueryInterval)
	case c.ResponseInterval < minResponse || c.ResponseInterval >= c.QueryInterval:
		return fmt.Errorf("multicast response interval %v is out of range; use at least %v and less than the query interval of %v", c.ResponseInterval, minResponse, c.QueryInterval)
	case c.IGMPVersion == 2 && c.ResponseInterval > maxResponseV2:
		return fmt.Errorf("multicast response interval %v does not fit an IGMPv2 query; use at most %v", c.ResponseInterval, maxResponseV2)
	case c.MLDVersion == 1 && c.ResponseInterval > maxResponseMLDv1:
		return fmt.Errorf("multicast response interval %v does not fit an MLDv1 query; use at most %v", c.ResponseInterval, maxResponseMLDv1)
	case c.LastMemberInterval < minResponse || c.LastMemberInterval > maxResponseV2:
		return fmt.Errorf("multicast last member interval %v is out of range; use %v to %v", c.LastMemberInterval, minResponse, maxResponseV2)
	case c.LastMemberCount < 1 || c.LastMemberCount > 10 || c.StartupCount < 1 || c.StartupCount > 10:
		return fmt.Errorf("%d last member and %d startup queries are out of range; use 1 to 10 of each", c.LastMemberCount, c.StartupCount)
	case c.StartupInterval < minResponse || c.StartupInterval > maxQueryInterval:
		return fmt.Errorf("multicast startup interval %v is out of range; use %v to %v", c.StartupInterval, minResponse, maxQueryInterval)
	case c.RouterTimeout < time.Second:
		return fmt.Errorf("router port timeout %v is too short; use at least 1s", c.RouterTimeout)
	case !c.IPv4.Is4() || c.IPv4.IsMulticast():
		return fmt.Errorf("querier address %v is not an IPv4 address of a station; use one of this network", c.IPv4)
	case !c.IPv6.Is6() || !c.IPv6.IsLinkLocalUnicast() || c.IPv6.Zone() != "":
		return fmt.Errorf("querier address %v is not an IPv6 link-local address; use one of fe80::/64 without a zone", c.IPv6)
	}
	return nil
}

// Limits of a query's fields, and of response times that hosts can keep.
const (
	minResponse      = 100 * time.Millisecond
	maxResponseV2    = 25500 * time.Millisecond // RFC 2236 section 2.2
	maxResponseMLDv1 = 65535 * time.Millisecond // RFC 2710 section 3.4
	maxQueryInterval = 31744 * time.Second      // RFC 3376 section 4.1.7
)

// linkLocal returns the address derived from a MAC by modified EUI-64 (RFC 4291
// appendix A).
func linkLocal(mac uint64) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: byte(mac>>40) ^ 2, 9: byte(mac >> 32), 10: byte(mac >> 24), 11: 0xff,
		12: 0xfe, 13: byte(mac >> 16), 14: byte(mac >> 8), 15: byte(mac),
	})
}
