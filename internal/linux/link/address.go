package link

import (
	"fmt"
	"net/netip"
	"slices"
)

// ParseAddresses reads addresses with the length of their prefix, without repetitions.
func ParseAddresses(texts []string) (list []netip.Prefix, err error) {
	for _, text := range texts {
		a, err := netip.ParsePrefix(text)
		if err != nil || a.Addr().Is4In6() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
			return nil, fmt.Errorf("%q is not an address with a prefix length; write it as 192.168.1.1/24 or fd00::1/64", text)
		}
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list, nil
}

// GiveAddress adds an address if it is absent. If it is there, that needs no rights.
func (l Link) GiveAddress(a netip.Prefix) (added bool, err error) {
	has, err := l.HasAddress(a)
	if err != nil || has {
		return false, err
	}
	return true, l.AddAddress(a)
}

// ExchangeAddresses removes the addresses of old that are not in list, and then adds those
// of list that are missing. The order matters: with an address the kernel deletes all later
// ones of its subnet (ip-sysctl.rst, promote_secondaries).
func (l Link) ExchangeAddresses(old, list []netip.Prefix) error {
	for _, a := range old {
		if !slices.Contains(list, a) {
			if err := l.DelAddress(a); err != nil {
				return err
			}
		}
	}
	for _, a := range list {
		if _, err := l.GiveAddress(a); err != nil {
			return err
		}
	}
	return nil
}
