package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// The counters of the switch are the sums of those of its ports, each of its own kind.
func TestCountersOfTheSwitch(t *testing.T) {
	of := func(n uint64) (c vswitch.Counters) {
		c.Frames, c.Bytes, c.Copies = n, 10*n, 100*n
		for why := range c.Dropped {
			c.Dropped[why] = n + uint64(why)*1000
		}
		return c
	}
	var total vswitch.Counters
	for n := range uint64(4) {
		sum(&total, of(n))
	}
	want := of(1 + 2 + 3)
	for why := range want.Dropped {
		want.Dropped[why] += 3 * uint64(why) * 1000
	}
	if total != want {
		t.Errorf("the sum is %+v, want %+v", total, want)
	}
}

// bundle is a port on several devices.
type bundle struct {
	*fakePort
	members []port.Member
}

func (b bundle) Members() []port.Member { return b.members }
func (bundle) SetParting(int, []byte)   {}

// The members of a port are described in their order, with what LACP knows of those that have it.
func TestMembersOfAPort(t *testing.T) {
	if got := membersOf(&fakePort{}); got != nil {
		t.Errorf("a port on one device has the members %+v", got)
	}
	partner := port.LACPPartner{System: 5, Key: 6, Port: 7, State: []string{"sync"}}
	got := membersOf(bundle{members: []port.Member{
		{Ifname: "eth0", Queue: 1, State: port.MemberActive, LACP: &port.LACPMember{State: []string{"active"}, Partner: &partner, Churn: true, Sent: 1, Received: 2, Discarded: 3}},
		{Ifname: "eth1", State: port.MemberStandby, Reason: "another carries", LACP: &port.LACPMember{Sent: 4}},
		{Ifname: "eth2", State: port.MemberWaiting, Reason: "it is not there"},
	}})
	want := []api.Member{
		{Ifname: "eth0", State: port.MemberActive, LACP: &api.LACP{
			State: []string{"active"}, Churn: true, Sent: 1, Received: 2, Discarded: 3,
			Partner: &api.LACPPartner{System: 5, Key: 6, Port: 7, State: []string{"sync"}},
		}},
		{Ifname: "eth1", State: port.MemberStandby, Reason: "another carries", LACP: &api.LACP{Sent: 4}},
		{Ifname: "eth2", State: port.MemberWaiting, Reason: "it is not there"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}
