package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/link"
)

// attachment is a container's NIC in a network.
type attachment struct {
	*conf
	labels
	args   *skel.CmdArgs
	port   string
	client *api.Client
}

func newAttachment(args *skel.CmdArgs) (*attachment, error) {
	c, err := readConf(args.StdinData)
	if err != nil {
		return nil, err
	}
	if len(args.ContainerID) > maxLabel {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID is too long", fmt.Sprintf("it has more than %d bytes", maxLabel))
	}
	if c.Runtime.MAC == "" {
		c.Runtime.MAC = argument(args.Args, "MAC")
	}
	a := &attachment{conf: c, labels: labels{c.Name, args.ContainerID, args.IfName}, args: args}
	a.port = portName(a.labels)
	a.client, err = c.connect()
	return a, err
}

// argument returns the value of a key in CNI_ARGS, by which older runtimes say what they have no
// capability for; "": it is not there.
func argument(all, key string) string {
	for one := range strings.SplitSeq(all, ";") {
		if name, value, _ := strings.Cut(one, "="); name == key {
			return value
		}
	}
	return ""
}

// again returns the result of an earlier ADD of the attachment, if all that it made is still
// there. Otherwise it removes what is left of that and returns nil.
func (a *attachment) again(ctx context.Context) (*current.Result, error) {
	p, err := a.client.Port(ctx, a.port)
	var refused *api.Error
	switch {
	case errors.As(err, &refused) && refused.Code == api.CodeNotFound:
		// An ADD that was killed may have an address.
		return nil, a.release(ctx)
	case err != nil:
		return nil, unavailable(err)
	case labelsOf(p) != a.labels:
		return nil, fmt.Errorf("port %s of switch %s is not this container's; remove it with `vswitch del-port %s`", a.port, a.Switch, a.port)
	}
	k, err := a.stored(a.port)
	if err == nil && k.Result != nil && a.readdress(k.Result) == nil && a.check(ctx, k.Result) == nil {
		return k.Result, nil
	}
	return nil, a.remove(ctx)
}

// readdress gives the container's interface in a result the MAC address that it has, which plugins
// behind this one may have changed (tuning), unless the runtime asked for one.
func (a *attachment) readdress(r *current.Result) error {
	if a.Runtime.MAC != "" {
		return nil
	}
	return a.within(func(l link.Link) error {
		mac, err := l.HardwareAddr()
		for _, i := range r.Interfaces {
			if i.Sandbox != "" && i.Name == l.Name {
				i.Mac = mac.String()
			}
		}
		return err
	})
}

// release gives the addresses of the attachment back.
func (a *attachment) release(ctx context.Context) error {
	if a.IPAM.Type == "" {
		return nil
	}
	return invoke.DelegateDel(ctx, a.IPAM.Type, a.args.StdinData, nil)
}

// remove takes everything of the attachment away.
func (a *attachment) remove(ctx context.Context) error {
	return errors.Join(a.release(ctx), a.forgetNow(ctx, a.client, a.port))
}

// add makes the attachment. What fails half way is undone.
func (a *attachment) add(ctx context.Context) (_ *current.Result, err error) {
	defer func() {
		if err != nil {
			_ = a.remove(ctx)
		}
	}()
	if _, err := link.FindNetns(a.args.Netns); err != nil {
		return nil, types.NewError(types.ErrUnknownContainer, "the container is gone", err.Error())
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	if a.IPAM.Type != "" {
		r, err := invoke.DelegateAdd(ctx, a.IPAM.Type, a.args.StdinData, nil)
		if err != nil {
			return nil, err
		}
		if result, err = current.NewResultFromResult(r); err != nil {
			return nil, err
		}
		if len(result.IPs) == 0 {
			return nil, fmt.Errorf("IPAM plugin %s gives no address", a.IPAM.Type)
		}
	}
	if result.DNS.Nameservers == nil && result.DNS.Domain == "" {
		result.DNS = a.DNS
	}
	err = patiently(func() error {
		_, err := a.client.AddPort(ctx, api.AddPort{Name: a.port, Kind: "veth", Settings: a.settings(a.labels, a.args.Netns)})
		return err
	})
	if err != nil {
		return nil, unavailable(err)
	}
	inside := current.Interface{Name: a.args.IfName, Sandbox: a.args.Netns}
	if err := a.within(func(l link.Link) error { return equip(l, result, &inside) }); err != nil {
		return nil, err
	}
	result.Interfaces = []*current.Interface{a.outside(), &inside}
	for _, ip := range result.IPs {
		ip.Interface = current.Int(1)
	}
	return result, a.store(a.port, result)
}

// behind returns a result behind the former one of the plugins before this one; nil: there are
// none.
func (a *attachment) behind(former, own *current.Result) *current.Result {
	if former == nil {
		return own
	}
	interfaces := former.Interfaces
	if slices.ContainsFunc(interfaces, func(i *current.Interface) bool { return i.Name == a.port && i.Sandbox == "" }) {
		return own // a runtime that repeats an ADD gave the answer to the first
	}
	all := *former
	all.Interfaces = append(slices.Clip(interfaces), own.Interfaces...)
	all.IPs, all.Routes = slices.Clip(former.IPs), append(slices.Clip(former.Routes), own.Routes...)
	for _, ip := range own.IPs {
		one := *ip
		if ip.Interface != nil {
			one.Interface = current.Int(len(interfaces) + *ip.Interface)
		}
		all.IPs = append(all.IPs, &one)
	}
	if all.DNS.IsEmpty() {
		all.DNS = own.DNS
	}
	return &all
}

// outside describes the switch's end. Its address is left out if the switch runs in another
// network namespace.
func (a *attachment) outside() *current.Interface {
	i := &current.Interface{Name: a.port}
	if l, err := link.ByName(a.port); err == nil {
		i.Mtu = l.MTU
		if mac, err := l.HardwareAddr(); err == nil {
			i.Mac = mac.String()
		}
	}
	return i
}

// within calls f in the container, with the container's interface.
func (a *attachment) within(f func(link.Link) error) error {
	ns, err := link.FindNetns(a.args.Netns)
	if err != nil {
		return err
	}
	return ns.Do(func() error {
		l, err := link.ByName(a.args.IfName)
		if err != nil {
			return err
		}
		return f(l)
	})
}

// equip gives a container's interface its addresses and routes, and describes it.
func equip(l link.Link, result *current.Result, i *current.Interface) error {
	mac, err := l.HardwareAddr()
	if err != nil {
		return err
	}
	i.Mac, i.Mtu = mac.String(), l.MTU
	gateways := make(map[bool]net.IP) // by whether it is of IPv4
	for _, ip := range result.IPs {
		v4 := ip.Address.IP.To4() != nil
		if !v4 {
			// Runtimes turn IPv6 off in containers until one has an address.
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+l.Name+"/disable_ipv6", []byte("0"), 0); err != nil {
				return err
			}
		}
		prefix, err := prefixOf(ip.Address)
		if err != nil {
			return err
		}
		if err := l.AddAddress(prefix); err != nil {
			return err
		}
		if gateways[v4] == nil {
			gateways[v4] = ip.Gateway
		}
	}
	for _, r := range result.Routes {
		via := r.GW
		if via == nil {
			via = gateways[r.Dst.IP.To4() != nil]
		}
		to, err := prefixOf(r.Dst)
		if err != nil {
			return err
		}
		route := link.Route{To: to, Via: via, Metric: r.Priority, MTU: r.MTU, AdvMSS: r.AdvMSS}
		if r.Table != nil {
			route.Table = *r.Table
		}
		if r.Scope != nil {
			route.Scope = *r.Scope
		}
		if err := l.AddRoute(route); err != nil {
			return err
		}
	}
	return nil
}

func prefixOf(n net.IPNet) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	a = a.Unmap()
	if !ok || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("%v is not an address with a prefix length", n)
	}
	return netip.PrefixFrom(a, ones-(bits-a.BitLen())), nil
}

// former returns the result that the runtime has of the attachment.
func (a *attachment) former() (*current.Result, error) {
	if err := version.ParsePrevResult(&a.PluginConf); err != nil {
		return nil, invalid("prevResult is not understood: %v", err)
	}
	if a.PrevResult == nil {
		return nil, invalid("prevResult is missing")
	}
	return current.NewResultFromResult(a.PrevResult)
}

// check returns what of a result is no longer so.
func (a *attachment) check(ctx context.Context, r *current.Result) error {
	p, err := a.client.Port(ctx, a.port)
	if err != nil {
		return unavailable(err)
	}
	switch p.State {
	case api.StateUp, api.StateNoCarrier:
	default:
		return fmt.Errorf("port %s is %s: %s", a.port, p.State, p.Reason)
	}
	return a.within(func(l link.Link) error {
		mac, err := l.HardwareAddr()
		if err != nil {
			return err
		}
		named := false
		for _, i := range r.Interfaces {
			if i.Sandbox == "" || i.Name != l.Name {
				continue
			}
			named = true
			switch {
			case i.Sandbox != a.args.Netns:
				return fmt.Errorf("%s is in %s, not in %s", l.Name, a.args.Netns, i.Sandbox)
			case !strings.EqualFold(i.Mac, mac.String()):
				return fmt.Errorf("%s has the address %v, not %s", l.Name, mac, i.Mac)
			}
		}
		if !named {
			return invalid("prevResult has no interface %s", l.Name)
		}
		for _, ip := range r.IPs {
			if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(r.Interfaces) || r.Interfaces[*ip.Interface].Name != l.Name {
				continue
			}
			prefix, err := prefixOf(ip.Address)
			if err != nil {
				return err
			}
			if has, err := l.HasAddress(prefix); err != nil || !has {
				return cmp.Or(err, fmt.Errorf("%s has lost its address %v", l.Name, prefix))
			}
		}
		for _, route := range r.Routes {
			to, err := prefixOf(route.Dst)
			if err != nil {
				return err
			}
			table := 0
			if route.Table != nil {
				table = *route.Table
			}
			if has, err := link.HasRoute(to, table); err != nil || !has {
				return cmp.Or(err, fmt.Errorf("the route to %v is lost", to))
			}
		}
		return nil
	})
}
