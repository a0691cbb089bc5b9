package feature

import (
	"reflect"
	"testing"
)

// A feature may embed the Host. That must give it no ability: the daemon would call the
// feature, which calls the daemon, for ever.
func TestHostHasNoAbility(t *testing.T) {
	host := reflect.TypeFor[Host]()
	for _, ability := range []reflect.Type{
		reflect.TypeFor[Configured](), reflect.TypeFor[Linked](), reflect.TypeFor[Removed](), reflect.TypeFor[Framed](), reflect.TypeFor[Queued](),
		reflect.TypeFor[Topology](), reflect.TypeFor[Described](), reflect.TypeFor[Kept](), reflect.TypeFor[Moved](), reflect.TypeFor[Explained](),
		reflect.TypeFor[Heir](),
	} {
		if host.Implements(ability) {
			t.Errorf("a Host is %v", ability)
		}
	}
}
