// Package store keeps sessions and approvals in DynamoDB: answers "kept where?".
//
// Every write is conditional, every read by key and strongly consistent, so that two brokers that open a session for the same
// run at the same moment end up in one, and of fifty that use one approval one does. Nothing scans; the list that people look
// at comes from an index, which may lag, and nothing is decided by it. DynamoDB's time to live is only housekeeping: it may
// be days late, so every reader checks the times.
//
// What an approval may become is not decided here: package approval has the rules. A mistake here can let an approval be used
// twice, or lose one.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

// kept is how long a session's item outlives the session, for the people who look back.
const kept = 90 * 24 * time.Hour

// Sessions is the table of sessions. It is safe for concurrent use.
type Sessions struct {
	db    *dynamodb.Client
	table string
}

// NewSessions uses the table of that name, which has the keys of settings.Sessions.
func NewSessions(db *dynamodb.Client, table string) *Sessions {
	return &Sessions{db: db, table: table}
}

// Open joins the open session of want's principal, run, cluster and tier, or opens want. A session is open until its end, or
// until it was not seen for idle. Joining makes it seen at now.
func (s *Sessions) Open(ctx context.Context, want access.Session, idle time.Duration, now time.Time) (access.Session, error) {
	pointer := key("run#"+want.Principal.Key()+"#"+want.Cluster, "open")
	for range 5 {
		old, err := s.get(ctx, pointer)
		if err != nil {
			return access.Session{}, err
		}
		id := text(old, "session")
		if id != "" {
			joined, err := s.join(ctx, id, want.Tier, idle, now)
			if err != nil || joined.ID != "" {
				return joined, err
			}
		}
		opened, err := s.open(ctx, pointer, id, want)
		if err != nil || opened {
			return want, err
		}
		// Somebody else opened one in between: join that.
	}
	return access.Session{}, access.Errorf(access.Unavailable, "too many sessions of %s are being opened at once; ask again", want.Principal.Agent).After(time.Second)
}

// Get finds a session by its id.
func (s *Sessions) Get(ctx context.Context, id string) (access.Session, error) {
	item, err := s.get(ctx, key("session#"+id, "session"))
	if err != nil {
		return access.Session{}, err
	}
	if len(item) == 0 {
		return access.Session{}, access.Errorf(access.NotFound, "there is no session %q", id)
	}
	return decode(item)
}

// join marks session id as seen and returns it; the zero session when it is over or of another tier.
func (s *Sessions) join(ctx context.Context, id, tier string, idle time.Duration, now time.Time) (access.Session, error) {
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:           &s.table,
		Key:                 key("session#"+id, "session"),
		UpdateExpression:    aws.String("SET seen = :now"),
		ConditionExpression: aws.String("ends > :now AND seen >= :idle AND seen <= :future AND tier = :tier AND attribute_not_exists(ended)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":now":  millis(now),
			":idle": millis(now.Add(-idle)),
			// A clock that ran ahead must not keep a session open for ever, nor may a slow one refuse to join.
			":future": millis(now.Add(time.Minute)),
			":tier":   &types.AttributeValueMemberS{Value: tier},
		},
		ReturnValues: types.ReturnValueAllNew,
	})
	var failed *types.ConditionalCheckFailedException
	switch {
	case errors.As(err, &failed):
		return access.Session{}, nil
	case err != nil:
		return access.Session{}, unavailable("joining a session", err)
	}
	return decode(out.Attributes)
}

// open writes the session and points the run at it, unless the run points elsewhere by now.
func (s *Sessions) open(ctx context.Context, pointer map[string]types.AttributeValue, old string, want access.Session) (bool, error) {
	item, err := encode(want)
	if err != nil {
		return false, err
	}
	point := map[string]types.AttributeValue{
		settings.Sessions.PartitionKey: pointer[settings.Sessions.PartitionKey],
		settings.Sessions.SortKey:      pointer[settings.Sessions.SortKey],
		"session":                      &types.AttributeValueMemberS{Value: want.ID},
		settings.Sessions.TTL:          seconds(want.Ends.Add(24 * time.Hour)),
	}
	unmoved := &types.Put{TableName: &s.table, Item: point, ConditionExpression: aws.String("attribute_not_exists(pk)")}
	if old != "" {
		unmoved.ConditionExpression = aws.String("#session = :old")
		unmoved.ExpressionAttributeNames = map[string]string{"#session": "session"}
		unmoved.ExpressionAttributeValues = map[string]types.AttributeValue{":old": &types.AttributeValueMemberS{Value: old}}
	}
	_, err = s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
		{Put: unmoved},
		{Put: &types.Put{TableName: &s.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk)")}},
	}})
	if raced(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable("opening a session", err)
	}
	return true, nil
}

func (s *Sessions) get(ctx context.Context, k map[string]types.AttributeValue) (map[string]types.AttributeValue, error) {
	return get(ctx, s.db, s.table, k, "reading a session")
}

func get(ctx context.Context, db *dynamodb.Client, table string, k map[string]types.AttributeValue, doing string) (map[string]types.AttributeValue, error) {
	out, err := db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &table, Key: k, ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, unavailable(doing, err)
	}
	return out.Item, nil
}

// raced says whether a write was not made because its condition does not hold, or another was under way: somebody was first.
func raced(err error) bool {
	var (
		failed    *types.ConditionalCheckFailedException
		conflict  *types.TransactionConflictException
		cancelled *types.TransactionCanceledException
	)
	if errors.As(err, &failed) || errors.As(err, &conflict) {
		return true
	}
	return errors.As(err, &cancelled) && slices.ContainsFunc(cancelled.CancellationReasons, func(r types.CancellationReason) bool {
		code := aws.ToString(r.Code)
		return code == "ConditionalCheckFailed" || code == "TransactionConflict"
	})
}

func unavailable(doing string, err error) error {
	return access.Errorf(access.Unavailable, "the broker cannot reach its table; nothing was done, ask again").Because(fmt.Errorf("%s: %w", doing, err)).After(2 * time.Second)
}

// unsure is for a write whose answer did not come: it may have been made.
func unsure(doing string, err error) error {
	return access.Errorf(access.Unavailable, "the broker cannot reach its table, and whether this was kept is not known; nothing was forwarded, look and ask again").Because(fmt.Errorf("%s: %w", doing, err)).After(2 * time.Second)
}

// lost is unsure, or nil.
func lost(doing string, err error) error {
	if err == nil {
		return nil
	}
	return unsure(doing, err)
}

func key(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{
		settings.Sessions.PartitionKey: &types.AttributeValueMemberS{Value: pk},
		settings.Sessions.SortKey:      &types.AttributeValueMemberS{Value: sk},
	}
}

func encode(s access.Session) (map[string]types.AttributeValue, error) {
	who, err := json.Marshal(s.Principal)
	if err != nil {
		return nil, fmt.Errorf("encoding the principal of session %s: %w", s.ID, err)
	}
	item := key("session#"+s.ID, "session")
	for name, v := range map[string]string{"id": s.ID, "principal": string(who), "cluster": s.Cluster, "tier": s.Tier, "name": s.Name,
		"policy": s.Policy, "started": s.Started.UTC().Format(sortable)} {
		item[name] = &types.AttributeValueMemberS{Value: v}
	}
	item["ends"], item["seen"] = millis(s.Ends), millis(s.Seen)
	item[settings.Sessions.TTL] = seconds(s.Ends.Add(kept))
	return item, nil
}

// sortable is RFC 3339 in UTC with a fixed number of digits, so that text order is time order.
const sortable = "2006-01-02T15:04:05.000Z"

func decode(item map[string]types.AttributeValue) (access.Session, error) {
	s := access.Session{ID: text(item, "id"), Cluster: text(item, "cluster"), Tier: text(item, "tier"), Name: text(item, "name"), Policy: text(item, "policy")}
	if err := json.Unmarshal([]byte(text(item, "principal")), &s.Principal); err != nil {
		return s, fmt.Errorf("decoding the principal of session %q: %w", s.ID, err)
	}
	var err error
	if s.Started, err = time.Parse(sortable, text(item, "started")); err != nil {
		return s, fmt.Errorf("decoding the start of session %q: %w", s.ID, err)
	}
	if s.Ends, err = instant(item, "ends"); err != nil {
		return s, err
	}
	s.Seen, err = instant(item, "seen")
	return s, err
}

func text(item map[string]types.AttributeValue, name string) string {
	if v, ok := item[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func instant(item map[string]types.AttributeValue, name string) (time.Time, error) {
	v, ok := item[name].(*types.AttributeValueMemberN)
	if !ok {
		return time.Time{}, fmt.Errorf("session item lacks %s", name)
	}
	ms, err := strconv.ParseInt(v.Value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("session item's %s: %w", name, err)
	}
	return time.UnixMilli(ms).UTC(), nil
}

func millis(t time.Time) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(t.UnixMilli(), 10)}
}

func seconds(t time.Time) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(t.Unix(), 10)}
}
